//! Load reports of endpoints, and the weight that follows from them (gRFC A58, with the reports of gRFC A51).

/// What an endpoint says of its own load: the fields of ORCA's report that weights are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Share of its cpu in use. Read where `application_utilization_permille` is 0.
    pub cpu_utilization_permille: u32,
    /// Share of whatever bounds it in use, as the application says; may exceed 1000.
    pub application_utilization_permille: u32,
    /// Requests a second that it answers.
    pub requests_per_s_milli: u64,
    /// Of those, the ones that failed.
    pub errors_per_s_milli: u64,
    /// Requests that it works on or that wait for it, whoever sent them; `None` where it does not say.
    pub requests_there: Option<u32>,
}

/// When reports count, and for how much. The defaults are those of gRFC A58.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportSettings {
    /// An endpoint reports for so long before its weight is used.
    pub blackout_us: u64,
    /// A weight is used for so long after the last report.
    pub expiry_us: u64,
    /// Weights are computed anew so often; at least 100 ms.
    pub update_us: u64,
    /// Thousandths of utilization that a share of errors of 1 counts as.
    pub error_penalty_permille: u32,
}

impl Default for ReportSettings {
    fn default() -> ReportSettings {
        ReportSettings {
            blackout_us: 10_000_000,
            expiry_us: 180_000_000,
            update_us: 1_000_000,
            error_penalty_permille: 1_000,
        }
    }
}

impl LoadReport {
    /// `qps / (utilization + errors / qps × penalty)`, in thousandths of a request a second for the whole of the endpoint. `None` where
    /// there were no requests or no utilization: such a report says nothing.
    #[must_use]
    pub fn weight_milli(&self, error_penalty_permille: u32) -> Option<u64> {
        let utilization = match self.application_utilization_permille {
            0 => self.cpu_utilization_permille,
            application => application,
        };
        if utilization == 0 || self.requests_per_s_milli == 0 {
            return None;
        }
        let requests = u128::from(self.requests_per_s_milli);
        let penalty = u128::from(self.errors_per_s_milli) * u128::from(error_penalty_permille) / requests;
        // Thousandths of a request over thousandths of the endpoint: one more factor of 1000 keeps the unit.
        let weight = requests * 1_000 / (u128::from(utilization) + penalty);
        Some(u64::try_from(weight).unwrap_or(u64::MAX).max(1))
    }
}

/// The weight of one endpoint over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReportedWeight {
    weight_milli: u64,
    last_updated_us: u64,
    /// `None` before the first report, and again once it expired.
    non_empty_since_us: Option<u64>,
}

impl ReportedWeight {
    /// Takes a report in.
    pub(crate) fn update(&mut self, now_us: u64, report: &LoadReport, settings: &ReportSettings) {
        if let Some(weight_milli) = report.weight_milli(settings.error_penalty_permille) {
            self.weight_milli = weight_milli;
            self.last_updated_us = now_us;
            self.non_empty_since_us.get_or_insert(now_us);
        }
    }

    /// The endpoint became ready: its blackout begins anew.
    pub(crate) fn became_ready(&mut self) {
        self.non_empty_since_us = None;
    }

    /// The weight where it may be used at present.
    pub(crate) fn get(&mut self, now_us: u64, settings: &ReportSettings) -> Option<u64> {
        let since_us = self.non_empty_since_us?;
        if now_us.saturating_sub(self.last_updated_us) >= settings.expiry_us {
            self.non_empty_since_us = None;
            return None;
        }
        (now_us.saturating_sub(since_us) >= settings.blackout_us).then_some(self.weight_milli)
    }
}

/// Requests of others on one endpoint: what it says that it has, less what this picker gave it.
///
/// A report is about a second old when it is read, and of no moment of this picker's. So the most that was outstanding since the report before counts as
/// its own: others' requests are never invented, where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Others {
    /// The most outstanding here since the last report, and between that and the one before.
    most: [u32; 2],
    /// When the last one was read.
    last_updated_us: u64,
}

impl Others {
    /// So many are outstanding now.
    pub(crate) fn note(&mut self, outstanding: u32) {
        self.most[0] = self.most[0].max(outstanding);
    }

    /// A report: requests of others there.
    pub(crate) fn update(&mut self, now_us: u64, requests_there: u32, outstanding: u32) -> u32 {
        let own = self.most[0].max(self.most[1]).max(outstanding);
        *self = Others { most: [outstanding, self.most[0]], last_updated_us: now_us };
        requests_there.saturating_sub(own)
    }

    /// When the last report no longer counts.
    pub(crate) fn expires_at_us(&self, settings: &ReportSettings) -> u64 {
        self.last_updated_us.saturating_add(settings.expiry_us)
    }
}

/// Weights for a schedule, at most `largest` each: those that are known in proportion, the mean of them for the others. All alike where
/// fewer than two are known (gRFC A58: then it is plain round robin).
pub(crate) fn spread(known: &[Option<u64>], largest: u32) -> Vec<u32> {
    let (count, sum, most) =
        known.iter().flatten().fold((0_u128, 0_u128, 1_u64), |(count, sum, most), weight| {
            (count + 1, sum + u128::from(*weight), most.max(*weight))
        });
    if count < 2 {
        return vec![largest; known.len()];
    }
    let scaled = |weight: u128| {
        let scaled = weight * u128::from(largest) / u128::from(most);
        u32::try_from(scaled).unwrap_or(largest).clamp(1, largest)
    };
    known.iter().map(|weight| scaled(weight.map_or(sum / count, u128::from))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: ReportSettings = ReportSettings {
        blackout_us: 10_000_000,
        expiry_us: 180_000_000,
        update_us: 1_000_000,
        error_penalty_permille: 1_000,
    };

    fn report(qps: u64, errors: u64, cpu_permille: u32) -> LoadReport {
        LoadReport {
            cpu_utilization_permille: cpu_permille,
            requests_per_s_milli: qps * 1_000,
            errors_per_s_milli: errors * 1_000,
            ..LoadReport::default()
        }
    }

    #[test]
    fn the_weight_is_requests_over_utilization_and_penalty() {
        // 100 / 0.5 = 200 a second; with 20 % errors 100 / (0.5 + 0.2) = 142.857.
        assert_eq!(report(100, 0, 500).weight_milli(1_000), Some(200_000));
        assert_eq!(report(100, 20, 500).weight_milli(1_000), Some(142_857));
        assert_eq!(report(100, 20, 500).weight_milli(0), Some(200_000));
        let said = LoadReport { application_utilization_permille: 1_250, ..report(100, 0, 500) };
        assert_eq!(said.weight_milli(1_000), Some(80_000));
        assert_eq!(report(0, 0, 500).weight_milli(1_000), None);
        assert_eq!(report(100, 0, 0).weight_milli(1_000), None);
        let extreme = LoadReport {
            cpu_utilization_permille: 1,
            requests_per_s_milli: u64::MAX,
            errors_per_s_milli: u64::MAX,
            ..LoadReport::default()
        };
        assert!(extreme.weight_milli(u32::MAX).is_some());
    }

    #[test]
    fn a_weight_counts_after_the_blackout_and_until_it_expires_and_then_the_blackout_begins_anew() {
        let mut weight = ReportedWeight::default();
        assert_eq!(weight.get(0, &SETTINGS), None);
        weight.update(5_000_000, &report(100, 0, 500), &SETTINGS);
        assert_eq!(weight.get(14_999_999, &SETTINGS), None);
        assert_eq!(weight.get(15_000_000, &SETTINGS), Some(200_000));
        assert_eq!(weight.get(184_999_999, &SETTINGS), Some(200_000));
        assert_eq!(weight.get(185_000_000, &SETTINGS), None);
        weight.update(190_000_000, &report(50, 0, 500), &SETTINGS);
        assert_eq!(weight.get(199_000_000, &SETTINGS), None);
        assert_eq!(weight.get(200_000_000, &SETTINGS), Some(100_000));
        // An empty report changes nothing.
        weight.update(200_000_000, &LoadReport::default(), &SETTINGS);
        assert_eq!(weight.get(200_000_000, &SETTINGS), Some(100_000));
        weight.became_ready();
        assert_eq!(weight.get(200_000_000, &SETTINGS), None);
    }

    #[test]
    fn those_without_a_weight_take_the_mean() {
        assert_eq!(spread(&[Some(100), None, Some(300)], 900), [300, 600, 900]);
        assert_eq!(spread(&[Some(100), None], 900), [900, 900]);
        assert_eq!(spread(&[Some(u64::MAX), Some(1), None], 1_000), [1_000, 1, 500]);
    }
}
