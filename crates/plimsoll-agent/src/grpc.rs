//! The conversation of an agent over gRPC: `plimsoll.v1.AgentService/Connect`.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use plimsoll_proto::v1;
use plimsoll_proto::v1::agent_service_client::AgentServiceClient;
use plimsoll_proto::v1::connect_request::Message as Request;
use plimsoll_proto::v1::connect_response::Message as Response;
use plimsoll_types::Resources;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::dial::{Conversation, Dial, LinkError};
use crate::gpu::{GpuReading, MigBoard, MigKind};
use crate::lease::{GrantedDevice, GrantedSlices, Lease};
use crate::load::{LeaseLoad, WorkloadLoad};
use crate::message::{
    FromCoordinator, LeaseNews, NodeHeartbeat, RegisterAnswer, RegisterFailure, Registered, RegisteredDevice,
    Registration, Report, ToCoordinator, Word,
};
use crate::meter::LeaseUse;
use crate::sample::Sample;

/// Messages that may wait for the network. A fleet says a few hundred at most before it hears something.
const OUTGOING: usize = 1024;

/// Makes a channel for the n-th attempt to reach a coordinator. Each attempt may go to another address; a lazy channel
/// is fine.
pub type ChannelFactory = Arc<dyn Fn(u64) -> Result<Channel, LinkError> + Send + Sync>;

/// Reaches coordinators over gRPC.
#[derive(Clone)]
pub struct GrpcDial {
    channels: ChannelFactory,
}

impl GrpcDial {
    /// Over channels that the caller makes, with whatever security and transport it chose.
    pub fn new(channels: impl Fn(u64) -> Result<Channel, LinkError> + Send + Sync + 'static) -> GrpcDial {
        GrpcDial { channels: Arc::new(channels) }
    }

    /// To each of these in turn.
    pub fn round_robin(endpoints: Vec<tonic::transport::Endpoint>) -> GrpcDial {
        GrpcDial::new(move |attempt| {
            let count = u64::try_from(endpoints.len()).unwrap_or(u64::MAX);
            let index = attempt.checked_rem(count).and_then(|index| usize::try_from(index).ok());
            let endpoint = index.and_then(|index| endpoints.get(index));
            endpoint
                .map(tonic::transport::Endpoint::connect_lazy)
                .ok_or_else(|| LinkError::new("no address is known"))
        })
    }
}

impl Dial for GrpcDial {
    fn open(&self, attempt: u64) -> BoxFuture<'_, Result<Conversation, LinkError>> {
        Box::pin(async move {
            let channel = (self.channels)(attempt)?;
            let (outgoing, queue) = mpsc::channel(OUTGOING);
            let requests = ReceiverStream::new(queue).map(request);
            let opened = AgentServiceClient::new(channel).connect(requests).await;
            let responses = opened.map_err(|status| link_error(&status))?.into_inner();
            let incoming = responses.filter_map(|received| async move {
                match received {
                    Ok(message) => response(message).map(Ok),
                    Err(status) => Some(Err(link_error(&status))),
                }
            });
            Ok(Conversation { outgoing, incoming: incoming.boxed() })
        })
    }
}

fn link_error(status: &tonic::Status) -> LinkError {
    LinkError::new(format!("{:?}: {}", status.code(), status.message()))
}

fn request(message: ToCoordinator) -> v1::ConnectRequest {
    let ToCoordinator { sequence, what } = message;
    let message = match what {
        Report::Register(nodes) => {
            Request::Register(v1::RegisterNodes { nodes: nodes.into_iter().map(registration).collect() })
        }
        Report::Heartbeat(nodes) => {
            Request::Heartbeat(v1::Heartbeat { nodes: nodes.into_iter().map(heartbeat).collect() })
        }
        Report::WorkloadEnded { node, epoch, reservation, token } => {
            let reason = "the lease ended on the node".to_owned();
            Request::LeaseEnded(v1::LeaseEnded { node, epoch, reservation, token, reason })
        }
    };
    v1::ConnectRequest { sequence, message: Some(message) }
}

fn registration(node: Registration) -> v1::NodeRegistration {
    v1::NodeRegistration {
        name: node.name,
        incarnation: node.incarnation,
        pool: node.pool,
        labels: node.labels,
        capacity: Some(quantities(&node.capacity)),
        devices: node.devices.into_iter().map(registered_device).collect(),
        self_fencing: node.self_fencing,
        running: node.running,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn registered_device(device: RegisteredDevice) -> v1::RegisteredDevice {
    v1::RegisteredDevice {
        uuid: device.uuid,
        model: device.model,
        memory_bytes: device.memory_bytes,
        failed: device.failed,
        mig: device.mig.map(mig_layout),
    }
}

fn mig_layout(board: MigBoard) -> v1::MigLayout {
    let profile = |kind: MigKind| v1::MigProfile {
        name: kind.name,
        compute_slices: kind.compute_slices,
        memory_slices: kind.memory_slices,
        memory_bytes: kind.memory_bytes,
        starts: kind.starts,
    };
    v1::MigLayout {
        compute_slices: board.compute_slices,
        memory_slices: board.memory_slices,
        profiles: board.profiles.into_iter().map(profile).collect(),
    }
}

fn quantities(amounts: &Resources) -> v1::Quantities {
    v1::Quantities {
        cpu_millis: amounts.cpu_millis.0,
        memory_bytes: amounts.memory_bytes.0,
        other: amounts.other.iter().map(|(name, amount)| (name.clone(), amount.0)).collect(),
    }
}

fn heartbeat(node: NodeHeartbeat) -> v1::NodeHeartbeat {
    v1::NodeHeartbeat {
        node: node.node,
        epoch: node.epoch,
        sample: node.sample.map(sample),
        loads: node.loads.into_iter().map(load).collect(),
        uses: node.uses.into_iter().map(lease_use).collect(),
    }
}

fn load(said: LeaseLoad) -> v1::LoadReport {
    let WorkloadLoad { metrics_milli: metrics, .. } = said.load;
    let load = v1::EndpointLoad {
        utilization_permille: said.load.utilization_permille,
        rate_milli: said.load.rate_milli,
        errors_milli: said.load.errors_milli,
        in_flight: said.load.in_flight,
        queue_depth: said.load.queue_depth,
        latency_us: said.load.latency_us,
        metrics,
        ..v1::EndpointLoad::default()
    };
    v1::LoadReport { name: said.reservation, token: said.token, load: Some(load) }
}

fn lease_use(of: LeaseUse) -> v1::LeaseUse {
    v1::LeaseUse {
        reservation: of.reservation,
        token: of.token,
        cpu_millis: of.cpu_millis,
        memory_bytes: of.memory_bytes,
        gpu_permille: of.gpu_permille,
    }
}

fn sample(sample: Sample) -> v1::NodeSample {
    let Sample { age_ms, host, gpus, .. } = sample;
    let some10 = |pressure: Option<crate::pressure::Pressure>| Some(pressure?.some?.avg10_permille);
    v1::NodeSample {
        age_ms,
        cpu_permille: host.cpu_permille,
        cpu_mhz: host.cpu_mhz,
        memory_used_bytes: host.memory_used_bytes,
        memory_available_bytes: host.memory_available_bytes,
        swap_used_bytes: host.swap_used_bytes,
        load1_milli: host.load1_milli,
        storage_available_bytes: host.storage_available_bytes,
        disk_read_bytes: host.disk_read_bytes,
        disk_written_bytes: host.disk_written_bytes,
        network_received_bytes: host.network_received_bytes,
        network_sent_bytes: host.network_sent_bytes,
        temperature_millicelsius: host.temperature_millicelsius,
        cpu_pressure_permille: some10(host.pressure.cpu),
        memory_pressure_permille: some10(host.pressure.memory),
        io_pressure_permille: some10(host.pressure.io),
        devices: gpus.into_iter().map(device_sample).collect(),
    }
}

fn device_sample(gpu: GpuReading) -> v1::DeviceSample {
    v1::DeviceSample {
        uuid: gpu.uuid,
        utilization_permille: gpu.utilization_permille,
        memory_used_bytes: gpu.memory_used_bytes,
        power_milliwatts: gpu.power_milliwatts,
        power_limit_milliwatts: gpu.power_limit_milliwatts,
        energy_millijoules: gpu.energy_millijoules,
        temperature_millicelsius: gpu.temperature_millicelsius,
        sm_clock_mhz: gpu.sm_clock_mhz,
        throttled: gpu.throttled,
        ecc_errors: gpu.ecc_errors,
        processes: gpu.processes.and_then(|processes| u32::try_from(processes.len()).ok()),
    }
}

/// `None` for a message of a later version, which an older agent can do nothing with.
fn response(message: v1::ConnectResponse) -> Option<FromCoordinator> {
    let what = match message.message? {
        Response::Registered(answer) => Word::Registered {
            nodes: answer.nodes.into_iter().map(register_answer).collect(),
            heartbeat_interval_ms: answer.heartbeat_interval_ms,
        },
        Response::HeartbeatSeen(seen) => {
            Word::HeartbeatSeen { clock_ms: seen.clock_ms, refused: seen.refused }
        }
        Response::LeaseGranted(v1::LeaseGranted { lease })
        | Response::LeaseUpdated(v1::LeaseUpdated { lease }) => {
            let mut lease = lease?;
            Word::Lease { node: std::mem::take(&mut lease.node), news: lease_news(lease) }
        }
        Response::LeaseStopped(end) => Word::LeaseEnded {
            reason: end.reason().as_str_name().to_owned(),
            node: end.node,
            reservation: end.reservation,
            token: end.token,
        },
        Response::NodeUpdated(node) => {
            Word::NodeState { state: node.state().as_str_name().to_owned(), node: node.node }
        }
    };
    Some(FromCoordinator { revision: message.revision, sequence: message.sequence, what })
}

fn register_answer(answer: v1::NodeRegistered) -> RegisterAnswer {
    let result = match answer.failure {
        None => Ok(Registered {
            epoch: answer.epoch,
            leases: answer.leases.into_iter().map(lease_news).collect(),
        }),
        Some(failure) => Err(register_failure(failure)),
    };
    RegisterAnswer { node: answer.node, result }
}

fn register_failure(failure: v1::Failure) -> RegisterFailure {
    let mut words = vec![failure.message];
    words.extend(failure.blockers.into_iter().map(|blocker| blocker.message));
    words.retain(|word| !word.is_empty());
    // "Wait and ask again" is no decision about this node, whether or not this try was applied.
    let definite = failure.definite && failure.retry_after_ms == 0;
    RegisterFailure { message: words.join("; "), definite }
}

fn lease_news(lease: v1::NodeLease) -> LeaseNews {
    let state = lease.state();
    let stopping = matches!(state, v1::ReservationState::Preempting | v1::ReservationState::Releasing);
    // No deadline is no end; nothing remaining is an end that has passed.
    let remaining_ms = (lease.deadline_ms > 0).then_some(lease.remaining_ms);
    let end_ms = lease.deadline_ms;
    let mut merged = Lease {
        reservation: lease.reservation,
        token: lease.token,
        cpu_millis: 0,
        memory_bytes: 0,
        devices: Vec::new(),
    };
    // Several members of a gang may be on this node: together they are one lease.
    for allocation in lease.allocations {
        let amounts = allocation.amounts.unwrap_or_default();
        merged.cpu_millis = merged.cpu_millis.saturating_add(amounts.cpu_millis);
        merged.memory_bytes = merged.memory_bytes.saturating_add(amounts.memory_bytes);
        for device in allocation.devices {
            add_device(&mut merged.devices, device);
        }
    }
    LeaseNews { lease: merged, remaining_ms, end_ms, stopping }
}

fn add_device(devices: &mut Vec<GrantedDevice>, grant: v1::DeviceGrant) {
    // Instances on one device stay apart: each is a device of its own to a workload.
    let same = |device: &&mut GrantedDevice| {
        device.uuid == grant.uuid && device.mig.is_none() && grant.mig.is_none()
    };
    if let Some(known) = devices.iter_mut().find(same) {
        known.milli = known.milli.saturating_add(grant.milli);
        known.memory_bytes = known.memory_bytes.saturating_add(grant.memory_bytes);
        return;
    }
    devices.push(GrantedDevice {
        uuid: grant.uuid,
        index: grant.index,
        milli: grant.milli,
        memory_bytes: grant.memory_bytes,
        model: grant.model,
        mig: grant.mig.map(|slices| GrantedSlices { profile: slices.profile, start: slices.start }),
    });
}

#[cfg(test)]
#[path = "grpc_test.rs"]
mod tests;
