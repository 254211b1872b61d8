//! Quantities as people write them: `500m`, `0.5`, `4Gi`, `100Mbps`, `1h30m`, `h100:2`.
//!
//! The grammar of amounts is that of Kubernetes: a decimal number with at most three places after the point, and a
//! suffix (`m`, none, `k`, `M`, `G`, `T`, `P`, `E`, `Ki` ... `Ei`, or a decimal exponent). Results are integers in the smallest
//! unit, rounded up, at most 2^63 - 1. Bandwidth is its own unit, decimal bits per second, since Kubernetes has none.

/// A quantity that could not be read: what was written, what is wrong with it, what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}: {hint}")]
pub struct QuantityError {
    /// What was written.
    pub text: String,
    /// What it should be.
    pub expected: &'static str,
    /// What would be right.
    pub hint: String,
}

/// GPUs as people ask for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuQuantity {
    /// Model, lower case, where one is named.
    pub model: Option<String>,
    /// Number of devices: 1 where a share is asked.
    pub count: u32,
    /// Thousandths of each device; 1000 is the whole.
    pub milli: u16,
}

const MAX: u128 = (u64::MAX >> 1) as u128;
const SUFFIXES: [(&str, u128); 12] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];

/// Reads an amount of cpu into thousandths of a core: `2`, `0.5`, `500m`.
///
/// # Errors
/// Where it is not such a quantity.
pub fn parse_cpu_millis(text: &str) -> Result<u64, QuantityError> {
    amount(text, 1_000, "an amount of cpu", "cores are written 2, 0.5 or 500m")
}

/// Reads an amount of memory or storage into bytes: `4Gi`, `512Mi`, `1e9`.
///
/// # Errors
/// Where it is not such a quantity; `m` (thousandths of a byte) is refused, since `400m` is always a slip.
pub fn parse_bytes(text: &str) -> Result<u64, QuantityError> {
    let help = "sizes are written 512Mi, 4Gi, 1Ti";
    if let Some(number) = text.strip_suffix('m') {
        let hint = format!("m means thousandths, so this is less than a byte; did you mean {number}Mi?");
        return Err(QuantityError { text: text.to_owned(), expected: "a size", hint });
    }
    amount(text, 1, "a size", help)
}

/// Reads a plain count of pieces: `3`, `10k`.
///
/// # Errors
/// Where it is not such a quantity.
pub fn parse_count(text: &str) -> Result<u64, QuantityError> {
    amount(text, 1, "a number", "numbers are written 3 or 10k")
}

/// Reads a bandwidth into bits per second: `100Mbps`, `1Gbps`, `100M`.
///
/// # Errors
/// Where it is not such a quantity.
pub fn parse_bits_per_second(text: &str) -> Result<u64, QuantityError> {
    let bare = text.strip_suffix("bps").unwrap_or(text);
    amount(bare, 1, "a bandwidth", "bandwidths are written 100Mbps or 1Gbps, in decimal bits per second")
        .map_err(|error| QuantityError { text: text.to_owned(), ..error })
}

/// Reads the amount of a resource by its name: `network/*` in bits per second, `storage/*` in bytes, cpu and memory as
/// they are, anything else in pieces.
///
/// # Errors
/// Where it is not a quantity of that resource.
pub fn parse_resource(name: &str, text: &str) -> Result<u64, QuantityError> {
    match name.split('/').next().unwrap_or_default() {
        "cpu" => parse_cpu_millis(text),
        "memory" | "storage" => parse_bytes(text),
        "network" => parse_bits_per_second(text),
        _ => parse_count(text),
    }
}

/// Reads a duration into milliseconds: `5m`, `1h30m`, `250ms`, `PT5M`, or bare seconds.
///
/// # Errors
/// Where it is not such a duration.
pub fn parse_duration_ms(text: &str) -> Result<u64, QuantityError> {
    let error =
        |hint: &str| QuantityError { text: text.to_owned(), expected: "a duration", hint: hint.to_owned() };
    let help = "durations are written 300, 5m, 1h30m or PT5M";
    if text.is_empty() {
        return Err(error(help));
    }
    let iso = text.strip_prefix("PT").map(str::to_ascii_lowercase);
    let mut rest = iso.as_deref().unwrap_or(text);
    if iso.is_none() && rest.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return number(rest).and_then(fit).ok_or_else(|| error(help));
    }
    let mut total_ms: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(|| error(help))?;
        let milli = number(&rest[..digits]).ok_or_else(|| error(help))?;
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit_ms: u128 = match &rest[..unit_len] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(error(help)),
        };
        rest = &rest[unit_len..];
        total_ms = milli
            .checked_mul(unit_ms)
            .map(|ms| ms.div_ceil(1_000))
            .and_then(|ms| ms.checked_add(total_ms))
            .ok_or_else(|| error("it is too long"))?;
    }
    fit(total_ms).ok_or_else(|| error("it is too long"))
}

/// Reads GPUs: `2`, `0.5`, `h100`, `h100:2`, `a100:0.25`.
///
/// # Errors
/// Where it is not such a quantity, or asks for a part of more than one device.
pub fn parse_gpu(text: &str) -> Result<GpuQuantity, QuantityError> {
    let help = "GPUs are written 1, 0.5, h100:2 or a100:0.5";
    let error = |hint: &str| QuantityError {
        text: text.to_owned(),
        expected: "a number of GPUs",
        hint: hint.to_owned(),
    };
    let (model, count) = match text.split_once(':') {
        Some((model, count)) => (Some(model), count),
        None if text.starts_with(|c: char| c.is_ascii_alphabetic()) => (Some(text), "1"),
        None => (None, text),
    };
    if model.is_some_and(str::is_empty) {
        return Err(error(help));
    }
    let milli = parse_cpu_millis(count).map_err(|_| error(help))?;
    let model = model.map(str::to_ascii_lowercase);
    match milli {
        0 => Err(error("ask for more than none")),
        1..1_000 => Ok(GpuQuantity { model, count: 1, milli: milli as u16 }),
        _ if milli % 1_000 != 0 => {
            Err(error("a part of a GPU comes from one device: ask for less than 1, or for whole ones"))
        }
        _ => {
            let count = u32::try_from(milli / 1_000).map_err(|_| error("that is more than any node has"))?;
            Ok(GpuQuantity { model, count, milli: 1_000 })
        }
    }
}

/// Cpu in its canonical form: `2`, `1500m`.
pub fn format_cpu_millis(millis: u64) -> String {
    if millis.is_multiple_of(1_000) { (millis / 1_000).to_string() } else { format!("{millis}m") }
}

/// Bytes in their canonical form: the largest binary suffix that keeps them whole, `1536Mi`.
pub fn format_bytes(bytes: u64) -> String {
    let whole = |(_, unit): &&(&str, u128)| bytes > 0 && u128::from(bytes) % unit == 0;
    match SUFFIXES[..6].iter().rev().find(whole) {
        Some((suffix, unit)) => format!("{}{suffix}", u128::from(bytes) / unit),
        None => bytes.to_string(),
    }
}

/// Bytes for tables, with one decimal: `62.6Gi`. Not exact; never to be read back.
pub fn display_bytes(bytes: u64) -> String {
    let unit = SUFFIXES[..6].iter().rev().find(|(_, unit)| u128::from(bytes) >= *unit);
    let Some((suffix, unit)) = unit else { return bytes.to_string() };
    let tenths = (u128::from(bytes) * 10 + unit / 2) / unit;
    if tenths % 10 == 0 {
        format!("{}{suffix}", tenths / 10)
    } else {
        format!("{}.{}{suffix}", tenths / 10, tenths % 10)
    }
}

/// A duration in its canonical form: `1h30m`, `250ms`, `0s`.
pub fn format_duration_ms(duration_ms: u64) -> String {
    let mut text = String::new();
    let mut rest = duration_ms;
    for (unit, unit_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= unit_ms {
            text.push_str(&format!("{}{unit}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// The amount of a resource by its name, in its canonical form.
pub fn format_resource(name: &str, amount: u64) -> String {
    match name.split('/').next().unwrap_or_default() {
        "cpu" => format_cpu_millis(amount),
        "memory" | "storage" => format_bytes(amount),
        "network" => format!("{amount}bps"),
        _ => amount.to_string(),
    }
}

/// Reads number and suffix, times `scale`, rounded up.
fn amount(text: &str, scale: u128, expected: &'static str, help: &str) -> Result<u64, QuantityError> {
    let error = |hint: String| QuantityError { text: text.to_owned(), expected, hint };
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (mantissa, suffix) = text.split_at(digits);
    if mantissa.is_empty() {
        let negative = text.starts_with('-') && text.len() > 1;
        return Err(error(if negative { "it cannot be negative".to_owned() } else { help.to_owned() }));
    }
    let Some(milli) = number(mantissa) else {
        return Err(error(format!("at most three digits after one point; {help}")));
    };
    let scaled = match suffix {
        "" => milli.checked_mul(scale),
        "m" => milli.checked_mul(scale).map(|value| value.div_ceil(1_000)),
        _ => match SUFFIXES.iter().find(|(name, _)| *name == suffix) {
            Some((_, factor)) => milli.checked_mul(scale).and_then(|value| value.checked_mul(*factor)),
            None => {
                exponent(suffix, milli, scale).ok_or_else(|| error(suffix_hint(mantissa, suffix, help)))?
            }
        },
    };
    scaled
        .map(|value| value.div_ceil(1_000))
        .and_then(fit)
        .ok_or_else(|| error("it is above 2^63 - 1 in the smallest unit".to_owned()))
}

/// `e9` or `E9`, up to 18. The outer `None`: not an exponent; the inner one: too large.
fn exponent(suffix: &str, milli: u128, scale: u128) -> Option<Option<u128>> {
    let power: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok().filter(|power| *power <= 18)?;
    Some(milli.checked_mul(scale).and_then(|value| value.checked_mul(10u128.pow(power))))
}

fn suffix_hint(mantissa: &str, suffix: &str, help: &str) -> String {
    let same =
        SUFFIXES.iter().find(|(name, _)| name.eq_ignore_ascii_case(suffix.trim_end_matches(['b', 'B'])));
    match same {
        Some((name, _)) => format!("did you mean {mantissa}{name}? {help}"),
        None => format!("{suffix:?} is no suffix; {help}"),
    }
}

/// A decimal number with at most three places, in thousandths.
fn number(text: &str) -> Option<u128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 || whole.len() + part.len() == 0 || whole.len() > 20
    {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u128 = format!("{part:0<3}").parse().ok()?;
    Some(whole * 1_000 + part)
}

fn fit(value: u128) -> Option<u64> {
    (value <= MAX).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cpu_is_read_as_kubernetes_reads_it() {
        for (text, millis) in [
            ("2", 2_000),
            ("0.5", 500),
            (".5", 500),
            ("500m", 500),
            ("1.5", 1_500),
            ("0.1m", 1),
            ("1k", 1_000_000),
        ] {
            assert_eq!(parse_cpu_millis(text), Ok(millis), "{text}");
        }
    }

    #[test]
    fn bytes_are_read_as_kubernetes_reads_them() {
        for (text, bytes) in [
            ("4Gi", 4 << 30),
            ("1.5Gi", 1536 << 20),
            ("1Ti", 1 << 40),
            ("1e9", 1_000_000_000),
            ("0.5", 1),
            ("128974848", 128_974_848),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn slips_are_refused_with_what_was_meant() {
        for (text, hint) in [
            ("400m", "400Mi"),
            ("4gi", "4Gi"),
            ("4GB", "4G"),
            ("1K", "1k"),
            ("-1", "negative"),
            ("", "512Mi"),
            ("1.2345", "three"),
            ("9e18Ei", "suffix"),
            ("16E", "2^63"),
        ] {
            let error = parse_bytes(text).expect_err(text);
            assert!(error.to_string().contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn bandwidth_is_decimal_bits() {
        assert_eq!(parse_bits_per_second("100Mbps"), Ok(100_000_000));
        assert_eq!(parse_bits_per_second("100M"), Ok(100_000_000));
        assert!(
            parse_bits_per_second("100mbps").is_ok_and(|bits| bits == 1),
            "m is a thousandth, rounded up"
        );
    }

    #[test]
    fn durations_are_seconds_go_or_iso() {
        for (text, ms) in [
            ("300", 300_000),
            ("1.5", 1_500),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("PT5M", 300_000),
            ("PT1H30M", 5_400_000),
            ("1.5h", 5_400_000),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "5x", "m", "-5s", "1h 5m", "99999999999999999999d"] {
            assert!(parse_duration_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn gpus_are_counts_shares_or_models() {
        let gpu = |model: Option<&str>, count, milli| {
            Ok(GpuQuantity { model: model.map(str::to_owned), count, milli })
        };
        assert_eq!(parse_gpu("1"), gpu(None, 1, 1_000));
        assert_eq!(parse_gpu("0.5"), gpu(None, 1, 500));
        assert_eq!(parse_gpu("H100:2"), gpu(Some("h100"), 2, 1_000));
        assert_eq!(parse_gpu("a100"), gpu(Some("a100"), 1, 1_000));
        for text in ["0", "1.5", ":2", "h100:", "-1", "x:y"] {
            assert!(parse_gpu(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in 0u64..=u64::MAX >> 1) {
            prop_assert_eq!(parse_bytes(&format_bytes(value)), Ok(value));
            prop_assert_eq!(parse_cpu_millis(&format_cpu_millis(value)), Ok(value));
            prop_assert_eq!(parse_duration_ms(&format_duration_ms(value)), Ok(value));
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,24}") {
            let _ = (parse_bytes(&text), parse_cpu_millis(&text), parse_duration_ms(&text), parse_gpu(&text), parse_bits_per_second(&text));
        }
    }
}
