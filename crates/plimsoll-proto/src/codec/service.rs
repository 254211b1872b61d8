//! Services, endpoints and their loads, into their stored forms and back.

use plimsoll_ledger::{Announcement, Endpoint, Load, LoadReport, Service};
use plimsoll_types::{LedgerTime, ReservationId, Revision};

use super::{CodecError, decode, encode, names};
use crate::log;

pub(super) fn encode(service: &Service) -> log::Service {
    log::Service {
        name: service.name.clone(),
        labels: encode::labels(&service.labels),
        pool: service.pool.clone(),
        class: service.class.clone(),
        balancing: names::encode_balancing(service.balancing),
        load_bound_permille: service.load_bound_permille,
        subset_size: service.subset_size,
        slow_start_ms: service.slow_start_ms,
        changed: service.changed.0,
    }
}

pub(super) fn decode(from: log::Service) -> Result<Service, CodecError> {
    Ok(Service {
        name: from.name,
        labels: decode::labels(from.labels)?,
        pool: from.pool,
        class: from.class,
        balancing: names::decode_balancing(from.balancing)?,
        load_bound_permille: from.load_bound_permille,
        subset_size: from.subset_size,
        slow_start_ms: from.slow_start_ms,
        changed: Revision(from.changed),
    })
}

pub(super) fn encode_announcement(announced: &Announcement) -> log::Announcement {
    log::Announcement {
        address: announced.address.clone(),
        zone: announced.zone.clone(),
        weight_milli: announced.weight_milli,
        draining: announced.draining,
        priority: announced.priority,
        concurrency: announced.concurrency,
    }
}

pub(super) fn decode_announcement(from: log::Announcement) -> Announcement {
    Announcement {
        address: from.address,
        zone: from.zone,
        weight_milli: from.weight_milli,
        draining: from.draining,
        priority: from.priority,
        concurrency: from.concurrency,
    }
}

pub(super) fn encode_endpoint(endpoint: &Endpoint) -> log::Endpoint {
    log::Endpoint { announced: Some(encode_announcement(&endpoint.announced)), since_ms: endpoint.since.0 }
}

pub(super) fn decode_endpoint(from: log::Endpoint) -> Result<Endpoint, CodecError> {
    let announced = decode_announcement(decode::need(from.announced, "endpoint.announced")?);
    Ok(Endpoint { announced, since: LedgerTime(from.since_ms) })
}

pub(super) fn encode_report(report: &LoadReport) -> log::LoadReport {
    log::LoadReport {
        reservation: report.reservation.0,
        utilization_permille: report.utilization_permille,
        rate_milli: report.rate_milli,
        errors_milli: report.errors_milli,
        in_flight: report.in_flight,
        queue_depth: report.queue_depth,
        latency_us: report.latency_us,
        metrics: encode::named(&report.metrics),
        measured_only: report.measured_only,
    }
}

/// They are a map by reservation, so there is one order and no two of the same.
pub(super) fn decode_reports(from: Vec<log::LoadReport>) -> Result<Vec<LoadReport>, CodecError> {
    if !from.is_sorted_by(|a, b| a.reservation < b.reservation) {
        return Err(CodecError::NotCanonical { what: "load reports" });
    }
    from.into_iter().map(decode_report).collect()
}

pub(super) fn encode_load(load: &Load) -> log::Load {
    log::Load { report: Some(encode_report(&load.report)), at_ms: load.at.0 }
}

pub(super) fn decode_load(from: log::Load) -> Result<Load, CodecError> {
    Ok(Load { report: decode_report(decode::need(from.report, "load.report")?)?, at: LedgerTime(from.at_ms) })
}

fn decode_report(from: log::LoadReport) -> Result<LoadReport, CodecError> {
    Ok(LoadReport {
        reservation: ReservationId(from.reservation),
        utilization_permille: from.utilization_permille,
        rate_milli: from.rate_milli,
        errors_milli: from.errors_milli,
        in_flight: from.in_flight,
        queue_depth: from.queue_depth,
        latency_us: from.latency_us,
        metrics: decode::named(from.metrics)?,
        measured_only: from.measured_only,
    })
}
