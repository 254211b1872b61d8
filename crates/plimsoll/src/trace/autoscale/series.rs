//! A recorded load: CSV with the columns `time,value`, plain or packed by gzip.

use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::simulation::REPLICA_MILLI;
use crate::error::CliError;
use crate::trace::rows;

/// Most rows of a file: eight years of minutes.
const MOST_ROWS: usize = 4_194_304;
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
        let mut series = Series { times: Vec::new(), values: Vec::new(), step_ms: UNKNOWN_STEP_MS };
        rows::read(path, &["time", "value"], &[], |row| {
            if series.values.len() >= MOST_ROWS {
                return Err(row.wrong("time", &format!("there are more than {MOST_ROWS} rows")));
            }
            let text = row.text("value")?;
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
            let wrong = || row.wrong("value", &format!("is {text:?}, a number from 0 is expected"));
            series.values.push(number.ok_or_else(wrong)?);
            series.times.push(row.text("time")?.to_owned());
            Ok(())
        })?;
        if series.values.is_empty() {
            return Err(CliError::usage(format!("{}:1: there are no rows", path.display())));
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

    fn parse(text: &str) -> Result<Series, String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        let name = file.path().display().to_string();
        Series::read(file.path()).map_err(|error| error.status()["message"].to_string().replace(&name, "f"))
    }

    #[test]
    fn times_give_the_step_and_values_the_load() {
        let text = "time,value\n2015-02-26 21:42:53,104\n2015-02-26 21:47:53,100\n2015-02-26 21:52:53,0\n";
        let series = parse(text).expect("it is fine");
        assert_eq!(series.step_ms, 300_000);
        assert_eq!(series.loads_milli(52.0), [2000, 1924, 0], "rounded up, but not beyond a whole replica");
        assert_eq!(parse("VALUE,time\n1,0\n2,30\n").expect("it is fine").step_ms, 30_000);
        assert_eq!(parse("time,value\nmon,1\ntue,2\n").expect("it is fine").step_ms, UNKNOWN_STEP_MS);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (text, wanted) in [
            ("", "f:1: expected"),
            ("time,load\n1,1\n", "f:1: expected"),
            ("time,value\n", "f:1: there are no rows"),
            ("time,value\n1,1\n2,-3\n", "f:3: column value: is \"-3\""),
            ("time,value\n1,x\n", "f:2: column value: is \"x\""),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(&wanted.replace('"', "\\\"")), "{error}");
        }
    }
}
