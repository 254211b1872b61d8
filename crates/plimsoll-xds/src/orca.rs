//! What an endpoint says of its own load with each answer: the open request cost aggregation (ORCA), version 3.
//!
//! The report travels in the trailer [`TRAILER`] of a gRPC answer. Clients with a policy that weighs by reports read it there, and hand sums on to the load reporting service.

use std::collections::BTreeMap;

use prost::Message;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};

use crate::pb::xds::data::orca::v3::OrcaLoadReport;

/// Name of the trailer.
pub const TRAILER: &str = "endpoint-load-metrics-bin";
/// Most bytes of a report.
pub const MOST_BYTES: usize = 4_096;
/// Most entries of each of its maps.
pub const MOST_ENTRIES: usize = 64;

/// Load of one endpoint, as it sees itself. What is not known is 0, as on the wire.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointLoad {
    /// Share of the processors in use; above 1 where it may use more than it is given.
    pub cpu_utilization: f64,
    /// Share of the memory in use, 0 to 1.
    pub mem_utilization: f64,
    /// How busy the application calls itself; above 1 where it is overloaded. Where it is not 0, policies weigh by it and not by `cpu_utilization`.
    pub application_utilization: f64,
    /// Requests per second.
    pub requests_per_second: f64,
    /// Errors per second.
    pub errors_per_second: f64,
    /// Shares of other resources in use, 0 to 1 each.
    pub utilization: BTreeMap<String, f64>,
    /// What this request cost.
    pub request_cost: BTreeMap<String, f64>,
    /// Anything else, such as the length of a queue.
    pub named_metrics: BTreeMap<String, f64>,
}

/// A report that cannot be read or sent.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LoadError {
    /// It is longer than any honest report.
    #[error("a load report of {bytes} bytes; {MOST_BYTES} is the bound")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It has more values than anybody reads.
    #[error("a load report with {entries} values in {map}; {MOST_ENTRIES} is the bound")]
    TooMany {
        /// Which map.
        map: &'static str,
        /// Its values.
        entries: usize,
    },
    /// It is no such message.
    #[error("not a load report: {0}")]
    Malformed(String),
    /// A value is out of range.
    #[error("a load report with {name} = {value}; allowed is 0 to {most}")]
    OutOfRange {
        /// Which value.
        name: String,
        /// As given.
        value: f64,
        /// The largest that is allowed.
        most: f64,
    },
}

impl EndpointLoad {
    /// Reads the bytes of the trailer.
    ///
    /// # Errors
    /// Where they are no report, or one that no endpoint can mean.
    pub fn parse(bytes: &[u8]) -> Result<EndpointLoad, LoadError> {
        if bytes.len() > MOST_BYTES {
            return Err(LoadError::TooLong { bytes: bytes.len() });
        }
        let report =
            OrcaLoadReport::decode(bytes).map_err(|error| LoadError::Malformed(error.to_string()))?;
        let load = EndpointLoad {
            cpu_utilization: report.cpu_utilization,
            mem_utilization: report.mem_utilization,
            application_utilization: report.application_utilization,
            requests_per_second: report.rps_fractional,
            errors_per_second: report.eps,
            utilization: report.utilization,
            request_cost: report.request_cost,
            named_metrics: report.named_metrics,
        };
        load.check()?;
        Ok(load)
    }

    /// The bytes of the trailer.
    ///
    /// # Errors
    /// Where clients would not take it.
    pub fn encode(&self) -> Result<Vec<u8>, LoadError> {
        self.check()?;
        let bytes = OrcaLoadReport {
            cpu_utilization: self.cpu_utilization,
            mem_utilization: self.mem_utilization,
            application_utilization: self.application_utilization,
            rps_fractional: self.requests_per_second,
            eps: self.errors_per_second,
            utilization: self.utilization.clone(),
            request_cost: self.request_cost.clone(),
            named_metrics: self.named_metrics.clone(),
        }
        .encode_to_vec();
        if bytes.len() > MOST_BYTES { Err(LoadError::TooLong { bytes: bytes.len() }) } else { Ok(bytes) }
    }

    /// The report in the trailers of an answer, if there is one.
    ///
    /// # Errors
    /// As [`EndpointLoad::parse`].
    pub fn of_trailers(trailers: &MetadataMap) -> Result<Option<EndpointLoad>, LoadError> {
        let Some(value) = trailers.get_bin(TRAILER) else { return Ok(None) };
        let bytes = value.to_bytes().map_err(|error| LoadError::Malformed(error.to_string()))?;
        EndpointLoad::parse(&bytes).map(Some)
    }

    /// The value of the trailer.
    ///
    /// # Errors
    /// As [`EndpointLoad::encode`].
    pub fn to_trailer(&self) -> Result<BinaryMetadataValue, LoadError> {
        Ok(BinaryMetadataValue::from_bytes(&self.encode()?))
    }

    /// Ranges as the published message states them.
    fn check(&self) -> Result<(), LoadError> {
        let finite = f64::MAX;
        let alone = [
            ("cpu_utilization", self.cpu_utilization, finite),
            ("mem_utilization", self.mem_utilization, 1.0),
            ("application_utilization", self.application_utilization, finite),
            ("requests_per_second", self.requests_per_second, finite),
            ("errors_per_second", self.errors_per_second, finite),
        ];
        for (name, value, most) in alone {
            in_range(name, value, 0.0, most)?;
        }
        let maps = [
            ("utilization", &self.utilization, 0.0, 1.0),
            ("request_cost", &self.request_cost, -finite, finite),
            ("named_metrics", &self.named_metrics, -finite, finite),
        ];
        for (map, values, least, most) in maps {
            if values.len() > MOST_ENTRIES {
                return Err(LoadError::TooMany { map, entries: values.len() });
            }
            for (name, value) in values {
                in_range(name, *value, least, most)?;
            }
        }
        Ok(())
    }
}

fn in_range(name: &str, value: f64, least: f64, most: f64) -> Result<(), LoadError> {
    // Not a number is in no range.
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(LoadError::OutOfRange { name: name.to_owned(), value, most })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> EndpointLoad {
        EndpointLoad {
            cpu_utilization: 1.25,
            mem_utilization: 0.5,
            application_utilization: 0.9,
            requests_per_second: 120.5,
            errors_per_second: 0.25,
            utilization: BTreeMap::from([("gpu".to_owned(), 1.0)]),
            request_cost: BTreeMap::from([("tokens".to_owned(), 812.0)]),
            named_metrics: BTreeMap::from([("queue".to_owned(), 7.0), ("trend".to_owned(), -0.5)]),
        }
    }

    #[test]
    fn a_report_comes_back_as_it_went() {
        let bytes = load().encode().expect("in range");
        assert_eq!(EndpointLoad::parse(&bytes), Ok(load()));
        let mut trailers = MetadataMap::new();
        assert_eq!(EndpointLoad::of_trailers(&trailers), Ok(None));
        trailers.insert_bin(TRAILER, load().to_trailer().expect("in range"));
        assert_eq!(EndpointLoad::of_trailers(&trailers), Ok(Some(load())));
    }

    #[test]
    fn the_bytes_are_those_of_the_published_message() {
        // Field 9, a double, little endian: written by hand.
        let bytes = [&[0x49][..], &0.9_f64.to_le_bytes()].concat();
        let expected = EndpointLoad { application_utilization: 0.9, ..EndpointLoad::default() };
        assert_eq!(EndpointLoad::parse(&bytes), Ok(expected.clone()));
        assert_eq!(expected.encode(), Ok(bytes));
    }

    #[test]
    fn what_no_endpoint_can_mean_is_refused_with_its_numbers() {
        let wrong = |change: fn(&mut EndpointLoad)| {
            let mut load = load();
            change(&mut load);
            load.encode().expect_err("out of range").to_string()
        };
        assert_eq!(
            wrong(|load| load.mem_utilization = 1.5),
            "a load report with mem_utilization = 1.5; allowed is 0 to 1"
        );
        assert!(wrong(|load| load.cpu_utilization = -0.1).contains("cpu_utilization = -0.1"));
        assert!(wrong(|load| load.errors_per_second = f64::NAN).contains("NaN"));
        assert!(
            wrong(|load| *load.utilization.entry("gpu".to_owned()).or_default() = 2.0).contains("gpu = 2")
        );
        assert!(
            wrong(|load| load.named_metrics = (0..65).map(|i| (i.to_string(), 0.0)).collect())
                .contains("65 values")
        );
        let long = |load: &mut EndpointLoad| load.request_cost = BTreeMap::from([("x".repeat(5_000), 1.0)]);
        assert!(wrong(long).contains("4096 is the bound"));
        assert!(matches!(EndpointLoad::parse(&[0; 4_097]), Err(LoadError::TooLong { bytes: 4_097 })));
        assert!(matches!(EndpointLoad::parse(&[0xff]), Err(LoadError::Malformed(_))));
    }
}
