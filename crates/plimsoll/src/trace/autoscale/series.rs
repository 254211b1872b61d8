//! A recorded load: CSV with the columns `time,value`, plain or packed by gzip.

use std::io::Read as _;
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::simulation::REPLICA_MILLI;
use crate::error::CliError;
use crate::trace::packed;

/// Largest file that is read, unpacked: 64 MiB.
const MOST_BYTES: u64 = 64 << 20;
/// Time of a step where the times say nothing.
const UNKNOWN_STEP_MS: u64 = 60_000;

/// A load over time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    /// As the file writes them.
    pub(crate) times: Vec<String>,
    pub(crate) values: Vec<f64>,
    /// The usual time between two rows, in milliseconds.
    pub(crate) step_ms: u64,
}

impl Series {
    pub(crate) fn read(path: &Path) -> Result<Series, CliError> {
        let doing = format!("cannot read {}", path.display());
        let source = packed::open(path).map_err(|error| CliError::local(&doing, error))?;
        let mut text = String::new();
        let read = source.take(MOST_BYTES + 1).read_to_string(&mut text);
        read.map_err(|error| CliError::local(&doing, error))?;
        if text.len() as u64 > MOST_BYTES {
            return Err(CliError::usage(format!("{} is larger than {MOST_BYTES} bytes", path.display())));
        }
        Series::parse(&path.display().to_string(), &text)
    }

    fn parse(name: &str, text: &str) -> Result<Series, CliError> {
        let wrong = |line: u64, what: String| CliError::usage(format!("{name}:{line}: {what}"));
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().map_err(|error| wrong(1, format!("this is not CSV: {error}")))?.clone();
        let column = |wanted: &str| {
            let found = header.iter().position(|column| column.trim().eq_ignore_ascii_case(wanted));
            found.ok_or_else(|| wrong(1, "expected the columns time,value".to_owned()))
        };
        let (time, value) = (column("time")?, column("value")?);
        let mut series = Series { times: Vec::new(), values: Vec::new(), step_ms: UNKNOWN_STEP_MS };
        for (index, record) in reader.records().enumerate() {
            let line = index as u64 + 2;
            let record = record.map_err(|error| wrong(line, format!("this is not CSV: {error}")))?;
            let cell = |column: usize| record.get(column).unwrap_or_default().trim();
            let number =
                cell(value).parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
            let Some(number) = number else {
                return Err(wrong(line, format!("value is {:?}, a number from 0 is expected", cell(value))));
            };
            series.times.push(cell(time).to_owned());
            series.values.push(number);
        }
        if series.values.is_empty() {
            return Err(wrong(1, "there are no rows".to_owned()));
        }
        series.step_ms = usual_step_ms(&series.times).unwrap_or(UNKNOWN_STEP_MS);
        Ok(series)
    }

    /// Loads in thousandths of what one replica serves, rounded up.
    pub(crate) fn loads_milli(&self, capacity: f64) -> Vec<u64> {
        // The small part taken off keeps a load of exactly so many replicas from needing one more.
        let load = |value: &f64| (value / capacity * REPLICA_MILLI as f64 - 1e-6).ceil().max(0.0) as u64;
        self.values.iter().map(load).collect()
    }
}

/// The median of the times between rows.
fn usual_step_ms(times: &[String]) -> Option<u64> {
    let moments: Option<Vec<i64>> = times.iter().map(|time| moment_ms(time)).collect();
    let moments = moments?;
    let mut steps: Vec<i64> = moments.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    steps.sort_unstable();
    let middle = *steps.get(steps.len() / 2)?;
    u64::try_from(middle).ok().filter(|step| *step > 0)
}

/// A date with time, or seconds.
fn moment_ms(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return seconds.is_finite().then_some((seconds * 1000.0) as i64);
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment.as_millisecond());
    }
    let moment = text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok()?;
    Some(moment.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_give_the_step_and_values_the_load() {
        let text = "time,value\n2015-02-26 21:42:53,104\n2015-02-26 21:47:53,100\n2015-02-26 21:52:53,0\n";
        let series = Series::parse("f", text).expect("it is fine");
        assert_eq!(series.step_ms, 300_000);
        assert_eq!(series.loads_milli(52.0), [2000, 1924, 0], "rounded up, but not beyond a whole replica");
        assert_eq!(Series::parse("f", "VALUE,time\n1,0\n2,30\n").expect("it is fine").step_ms, 30_000);
        assert_eq!(
            Series::parse("f", "time,value\nmon,1\ntue,2\n").expect("it is fine").step_ms,
            UNKNOWN_STEP_MS
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (text, wanted) in [
            ("", "f:1: expected"),
            ("time,load\n1,1\n", "f:1: expected"),
            ("time,value\n", "f:1: there are no rows"),
            ("time,value\n1,1\n2,-3\n", "f:3: value is \"-3\""),
            ("time,value\n1,x\n", "f:2: value is \"x\""),
        ] {
            let error = Series::parse("f", text).expect_err(text).status().to_string();
            assert!(error.contains(&wanted.replace('"', "\\\"")), "{error}");
        }
    }
}
