//! Pressure stall information: the share of time in which tasks waited for cpu, memory or disk.
//!
//! The kernel's best single sign of overload. sysinfo has none of it, so the three small files are read here.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// One line of a pressure file: the share of time in which tasks were stalled, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// Over the last 10 seconds, in thousandths.
    pub avg10_permille: u32,
    /// Over the last 60 seconds, in thousandths.
    pub avg60_permille: u32,
    /// Since boot, in microseconds.
    pub total_us: u64,
}

/// One pressure file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// At least one task was stalled.
    pub some: Option<Stall>,
    /// All non-idle tasks were stalled at once. Older kernels do not report it for the cpu.
    pub full: Option<Stall>,
}

/// The three pressure files. A kernel without pressure information leaves all absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureReading {
    /// Waiting for a processor.
    pub cpu: Option<Pressure>,
    /// Waiting for memory.
    pub memory: Option<Pressure>,
    /// Waiting for storage.
    pub io: Option<Pressure>,
}

/// Reads `cpu`, `memory` and `io` in a folder such as `/proc/pressure`. What cannot be read is absent.
pub fn read_pressure(folder: &Path) -> PressureReading {
    let file = |name| std::fs::read_to_string(folder.join(name)).ok().and_then(|text| parse_pressure(&text));
    PressureReading { cpu: file("cpu"), memory: file("memory"), io: file("io") }
}

/// Parses one pressure file; `None` where it holds no line of the known form. Unknown lines and fields are skipped.
pub fn parse_pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("some", rest)) => pressure.some = parse_stall(rest),
            Some(("full", rest)) => pressure.full = parse_stall(rest),
            _ => {}
        }
    }
    (pressure.some.is_some() || pressure.full.is_some()).then_some(pressure)
}

fn parse_stall(fields: &str) -> Option<Stall> {
    let (mut avg10, mut avg60, mut total) = (None, None, None);
    for field in fields.split_whitespace() {
        match field.split_once('=')? {
            ("avg10", value) => avg10 = permille_of_percent(value),
            ("avg60", value) => avg60 = permille_of_percent(value),
            ("total", value) => total = value.parse().ok(),
            _ => {}
        }
    }
    Some(Stall { avg10_permille: avg10?, avg60_permille: avg60?, total_us: total? })
}

/// "12.34" percent is 123 thousandths. Integer arithmetic on the text, so no rounding surprises.
fn permille_of_percent(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let tenths = u32::from(fraction.bytes().next().filter(u8::is_ascii_digit)? - b'0');
    whole.parse::<u32>().ok()?.checked_mul(10)?.checked_add(tenths)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: &str = "some avg10=12.34 avg60=2.98 avg300=4.48 total=39263957\n\
                       full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";

    #[test]
    fn a_recorded_file_is_read_in_thousandths() {
        let pressure = parse_pressure(CPU).unwrap();
        assert_eq!(
            pressure.some,
            Some(Stall { avg10_permille: 123, avg60_permille: 29, total_us: 39_263_957 })
        );
        assert_eq!(pressure.full, Some(Stall::default()));
    }

    #[test]
    fn the_older_form_without_full_and_unknown_fields_are_fine() {
        let pressure =
            parse_pressure("some avg10=100.00 avg60=1.00 avg300=0.10 new=3 total=5\nother x\n").unwrap();
        assert_eq!(pressure.some.unwrap().avg10_permille, 1000);
        assert_eq!(pressure.full, None);
    }

    #[test]
    fn what_is_not_a_pressure_file_is_absent_and_never_zero() {
        for text in ["", "some", "some avg10=x avg60=1.00 total=1", "some avg10=1.00", "garbage\n\n"] {
            assert_eq!(parse_pressure(text), None, "{text:?}");
        }
        assert_eq!(read_pressure(Path::new("/nonexistent")), PressureReading::default());
    }

    #[test]
    fn a_folder_with_one_file_reads_that_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("memory"), CPU).unwrap();
        let reading = read_pressure(folder.path());
        assert!(reading.memory.is_some());
        assert_eq!(reading.cpu, None);
    }
}
