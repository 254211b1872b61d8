//! Requests in the words of people: `client.pool("gpu").request().gpu_memory("20Gi").acquire().await`.

use std::time::Duration;

use plimsoll_proto::v1::{
    Affinity, CreateReservationRequest, Gang, GpuAsk, NodeSelectorTerm, PreferredTerm, Quantities,
    Requirements, Reservation, ReservationSpec, Role, Topology, WaitPolicy,
};
use plimsoll_types::quantity;

use crate::{Client, Error, Lease};

/// A pool, to ask things of.
#[derive(Clone, Debug)]
pub struct PoolHandle {
    client: Client,
    name: String,
}

/// A request that is being put together. Values that cannot be read are told all at once, when it is sent.
#[derive(Clone, Debug)]
#[must_use]
pub struct RequestBuilder {
    client: Client,
    spec: ReservationSpec,
    problems: Vec<String>,
}

impl Client {
    /// A pool by name.
    pub fn pool(&self, name: impl Into<String>) -> PoolHandle {
        PoolHandle { client: self.clone(), name: name.into() }
    }

    /// Asks for a reservation with this specification, with a new request id.
    ///
    /// # Errors
    /// As for every call.
    pub async fn reserve(&self, spec: ReservationSpec) -> Result<Reservation, Error> {
        let request = CreateReservationRequest { spec: Some(spec), ..CreateReservationRequest::default() };
        let response = self.create_reservation(request).await?;
        response.reservation.ok_or_else(|| Error::Invalid("the coordinator's answer was empty".to_owned()))
    }
}

impl PoolHandle {
    /// Begins a request.
    pub fn request(&self) -> RequestBuilder {
        let spec = ReservationSpec { pool: self.name.clone(), ..ReservationSpec::default() };
        RequestBuilder { client: self.client.clone(), spec, problems: Vec::new() }
    }
}

impl RequestBuilder {
    /// Compute, as in `2`, `0.5` or `500m`.
    pub fn cpu(mut self, amount: &str) -> Self {
        let millis = self.read(quantity::parse_cpu_millis(amount));
        self.amounts().cpu_millis = millis;
        self
    }

    /// Memory, as in `4Gi`.
    pub fn memory(mut self, amount: &str) -> Self {
        let bytes = self.read(quantity::parse_bytes(amount));
        self.amounts().memory_bytes = bytes;
        self
    }

    /// Any other resource, as in `license/foo` and `2`.
    pub fn resource(mut self, name: &str, amount: &str) -> Self {
        let units = self.read(quantity::parse_resource(name, amount));
        self.amounts().other.insert(name.to_owned(), units);
        self
    }

    /// GPUs, as in `2`, `0.5` or `h100:2`.
    pub fn gpu(mut self, amount: &str) -> Self {
        match quantity::parse_gpu(amount) {
            Ok(asked) => {
                let gpu = self.gpu_ask();
                gpu.count = asked.count;
                let milli = u32::from(asked.milli);
                gpu.milli = if gpu.mig_profile.is_empty() || milli != WHOLE_MILLI { milli } else { 0 };
                gpu.models = asked.model.into_iter().collect();
                // Said before: with a number of devices it is the least that each must have.
                gpu.min_device_memory_bytes += std::mem::take(&mut gpu.memory_bytes);
            }
            Err(error) => self.problems.push(error.to_string()),
        }
        self
    }

    /// GPU memory, as in `20Gi`: without [`RequestBuilder::gpu`] so much of one device, otherwise the least that each
    /// device must have.
    pub fn gpu_memory(mut self, amount: &str) -> Self {
        let bytes = self.read(quantity::parse_bytes(amount));
        let gpu = self.gpu_ask();
        if gpu.count == 0 {
            gpu.memory_bytes = bytes;
        } else {
            gpu.min_device_memory_bytes = bytes;
        }
        self
    }

    /// An instance of a MIG profile, as in `1g.10gb`, on a device that is cut into slices. A model that is asked with
    /// [`RequestBuilder::gpu`] still holds; a part of a device does not.
    pub fn gpu_mig(mut self, profile: &str) -> Self {
        let gpu = self.gpu_ask();
        gpu.mig_profile = profile.trim().to_ascii_lowercase();
        gpu.count = gpu.count.max(1);
        gpu.milli = if gpu.milli == WHOLE_MILLI { 0 } else { gpu.milli };
        gpu.min_device_memory_bytes += std::mem::take(&mut gpu.memory_bytes);
        self
    }

    /// Name for people.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.spec.name = name.into();
        self
    }

    /// Priority class.
    pub fn class(mut self, class: impl Into<String>) -> Self {
        self.spec.class = class.into();
        self
    }

    /// Team, user or namespace that it is for.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.spec.tenant = tenant.into();
        self
    }

    /// Adds a label.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.labels.insert(key.into(), value.into());
        self
    }

    /// Length of the lease that each renewal buys.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.spec.ttl_ms = as_ms(ttl);
        self
    }

    /// The grant ends after so long, whatever is renewed.
    pub fn max_duration(mut self, duration: Duration) -> Self {
        self.spec.max_duration_ms = as_ms(duration);
        self
    }

    /// Keeps it for later: nothing is taken before `start_at_ms` (milliseconds since the epoch). Needs a longest duration.
    pub fn start_at_ms(mut self, start_at_ms: u64) -> Self {
        self.spec.start_at_ms = start_at_ms;
        self
    }

    /// Queue where nothing is free now, for at most so long; without a limit for `None`.
    pub fn wait(mut self, longest: Option<Duration>) -> Self {
        self.spec.wait = Some(WaitPolicy { queue: true, deadline_ms: longest.map_or(0, as_ms) });
        self
    }

    /// Several members, all or nothing: at least `min`, at most `max`; on distinct nodes with `spread`.
    pub fn gang(mut self, min: u32, max: u32, spread: bool) -> Self {
        self.spec.gang = Some(Gang { min_members: min, max_members: max, spread });
        self
    }

    /// Adds members of one kind: at least `min` of them, at most `max`, granted with those of the other roles or not at all. What members need is said
    /// in the roles then.
    pub fn role(mut self, name: &str, (min, max): (u32, u32), requirements: Requirements) -> Self {
        let role = Role {
            name: name.to_owned(),
            requirements: Some(requirements),
            min_members: min,
            max_members: max,
        };
        self.spec.roles.push(role);
        self
    }

    /// A gang that loses members goes on without them for so long, first in line of its class for what takes their place.
    pub fn repair_within(mut self, longest: Duration) -> Self {
        self.spec.repair_within_ms = as_ms(longest);
        self
    }

    /// Adds a condition on node labels that must hold.
    pub fn require(mut self, term: NodeSelectorTerm) -> Self {
        self.requirements().required.push(term);
        self
    }

    /// Adds a wish about node labels, with its weight from 1 to 100.
    pub fn prefer(mut self, weight: u32, term: NodeSelectorTerm) -> Self {
        self.requirements().preferred.push(PreferredTerm { weight, term: Some(term) });
        self
    }

    /// How near each other the members have to be.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.spec.topology = Some(topology);
        self
    }

    /// Adds a rule about other work: with it, or apart from it.
    pub fn affinity(mut self, rule: Affinity) -> Self {
        self.spec.affinity.push(rule);
        self
    }

    /// The specification so far.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every value that could not be read.
    pub fn spec(self) -> Result<ReservationSpec, Error> {
        match self.problems.is_empty() {
            true => Ok(self.spec),
            false => Err(Error::Invalid(self.problems.join("; "))),
        }
    }

    /// Asks for it, and returns what the ledger says at once: held, pending or refused.
    ///
    /// # Errors
    /// As for every call, and [`Error::Invalid`] as for [`RequestBuilder::spec`].
    pub async fn reserve(self) -> Result<Reservation, Error> {
        let client = self.client.clone();
        client.reserve(self.spec()?).await
    }

    /// Asks for it, waits for the grant where it is queued, and keeps it until the lease is dropped or released.
    ///
    /// # Errors
    /// As for [`RequestBuilder::reserve`], and [`Error::LeaseLost`] where it ended before it was granted.
    pub async fn acquire(self) -> Result<Lease, Error> {
        let client = self.client.clone();
        Lease::acquire(&client, self.spec()?).await
    }

    fn read(&mut self, value: Result<u64, quantity::QuantityError>) -> u64 {
        value.unwrap_or_else(|error| {
            self.problems.push(error.to_string());
            0
        })
    }

    fn requirements(&mut self) -> &mut Requirements {
        self.spec.requirements.get_or_insert_default()
    }

    fn amounts(&mut self) -> &mut Quantities {
        self.requirements().amounts.get_or_insert_default()
    }

    fn gpu_ask(&mut self) -> &mut GpuAsk {
        self.requirements().gpu.get_or_insert_default()
    }
}

/// Thousandths of a whole device.
const WHOLE_MILLI: u32 = 1_000;

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClientOptions;

    fn request() -> RequestBuilder {
        let client = Client::new(["127.0.0.1:1"], ClientOptions::default()).expect("a good address");
        client.pool("gpu").request()
    }

    #[tokio::test]
    async fn a_request_is_read_as_it_is_written() {
        let spec = request()
            .cpu("1.5")
            .memory("1Gi")
            .gpu("h100:2")
            .resource("license/foo", "3")
            .spec()
            .expect("good");
        let requirements = spec.requirements.expect("given");
        let amounts = requirements.amounts.expect("given");
        assert_eq!(
            (amounts.cpu_millis, amounts.memory_bytes, amounts.other["license/foo"]),
            (1500, 1 << 30, 3)
        );
        let gpu = requirements.gpu.expect("given");
        assert_eq!((gpu.count, gpu.milli, gpu.models), (2, 1000, vec!["h100".to_owned()]));
        assert_eq!(spec.pool, "gpu");
    }

    #[tokio::test]
    async fn memory_alone_asks_for_a_share_of_one_device() {
        let spec = request().gpu_memory("20Gi").spec().expect("good");
        let gpu = spec.requirements.expect("given").gpu.expect("given");
        assert_eq!((gpu.count, gpu.milli, gpu.memory_bytes), (0, 0, 20 << 30));
        for request in [request().gpu_memory("20Gi").gpu("2"), request().gpu("2").gpu_memory("20Gi")] {
            let gpu = request.spec().expect("good").requirements.expect("given").gpu.expect("given");
            assert_eq!((gpu.count, gpu.memory_bytes, gpu.min_device_memory_bytes), (2, 0, 20 << 30));
        }
    }

    #[tokio::test]
    async fn a_profile_is_one_instance_of_the_model_that_is_named() {
        let good = [
            request().gpu("h100").gpu_mig("1g.10gb").gpu_memory("60Gi"),
            request().gpu_memory("60Gi").gpu_mig(" 1G.10gb").gpu("h100"),
        ];
        for request in good {
            let gpu = request.spec().expect("good").requirements.expect("given").gpu.expect("given");
            assert_eq!((gpu.count, gpu.milli, gpu.memory_bytes), (1, 0, 0));
            assert_eq!((gpu.mig_profile.as_str(), gpu.min_device_memory_bytes), ("1g.10gb", 60 << 30));
            assert_eq!(gpu.models, ["h100"]);
        }
        let part = request().gpu("0.5").gpu_mig("1g.10gb").spec().expect("the coordinator refuses it");
        assert_eq!(part.requirements.expect("given").gpu.expect("given").milli, 500);
    }

    #[tokio::test]
    async fn all_values_that_cannot_be_read_are_told_at_once() {
        let error = request().cpu("x").memory("400m").spec().expect_err("bad");
        let text = error.to_string();
        assert!(text.contains("\"x\"") && text.contains("400Mi"), "{text}");
    }
}
