//! Quantities, durations, GPU requests and ids as people write them.

use plimsoll_types::ReservationId;
use plimsoll_types::quantity::{
    format_bytes, format_cpu_millis, parse_bits_per_second, parse_bytes, parse_count, parse_cpu_millis,
    parse_duration_ms, parse_gpu, parse_resource,
};

/// Parses the input as everything that it might be. What is written back means the same.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(cpu_millis) = parse_cpu_millis(text) {
        assert_eq!(parse_cpu_millis(&format_cpu_millis(cpu_millis)), Ok(cpu_millis), "{text:?}");
    }
    if let Ok(bytes) = parse_bytes(text) {
        assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes), "{text:?}");
    }
    if let Ok(id) = text.parse::<ReservationId>() {
        assert_eq!(id.to_string().parse(), Ok(id), "{text:?}");
    }
    // These have no canonical spelling of their own: they must come to an end, with a value or with words.
    for refused in [
        parse_count(text).err().map(|error| error.to_string()),
        parse_bits_per_second(text).err().map(|error| error.to_string()),
        parse_duration_ms(text).err().map(|error| error.to_string()),
        parse_gpu(text).err().map(|error| error.to_string()),
        parse_resource("license/matlab", text).err().map(|error| error.to_string()),
        parse_resource("network", text).err().map(|error| error.to_string()),
    ]
    .into_iter()
    .flatten()
    {
        assert!(!refused.is_empty());
    }
}

/// Good and bad spellings.
pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "",
        "0",
        "1",
        "0.5",
        "1500m",
        "1.5Gi",
        "1536Mi",
        "64GiB",
        "4k",
        "4K",
        "1e3",
        "1E3",
        "1e-3",
        ".5",
        "5.",
        "-1",
        "+1",
        "400m",
        "9223372036854775807",
        "18446744073709551616",
        "1Ei",
        "8Ei",
        "100Mbps",
        "1.25Gbps",
        "5m",
        "1h30m",
        "PT5M",
        "300",
        "1d",
        "a100:2",
        "h100",
        "0.25",
        "20Gi",
        "r-7k2m",
        "r-0",
        "r-zzzzzzzzzzzzz",
        "1.0000000000001",
        "0x10",
        "1_000",
        "１",
        "∞",
        "1 Gi",
        " 1",
        "1\n",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
