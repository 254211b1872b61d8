//! The run: requests arrive at their recorded times, the real picker chooses, simulated servers serve. Time is simulated, events are taken in its order
//! (among equals in the order in which they were made), and the picker is told what a client would see: when its requests began to be answered and
//! ended, and the load reports of the servers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use plimsoll_balancer::{
    Endpoint, EndpointId, Flight, NoEndpoint, Outcome, Picker, Policy, Request, Settings,
};
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};

use super::Arrival;
use super::server::{Server, ServerModel, Taken};

/// Time between two load reports of a server.
const REPORT_EVERY_US: u64 = 10_000_000;
/// The first request arrives an hour after the endpoints became ready: slow start is over.
const BEGIN_US: u64 = 3_600_000_000;

/// What is run.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) endpoints: u32,
    pub(crate) policy: Policy,
    pub(crate) settings: Settings,
    pub(crate) seed: u64,
    pub(crate) model: ServerModel,
    /// Times slower, by the endpoint's number.
    pub(crate) slowness: Vec<u64>,
}

/// What became of a request. Times in those of the recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) endpoint: usize,
    pub(crate) start_us: u64,
    pub(crate) end_us: u64,
    pub(crate) found_blocks: usize,
}

/// What became of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Course {
    /// In the order of the arrivals.
    pub(crate) served: Vec<Served>,
    /// Time times places in use, by endpoint.
    pub(crate) busy_place_us: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Read { server: usize, request: usize },
    End { server: usize, request: usize },
    Report,
}

/// One run. Requests arrive in the order of `arrivals`, which are sorted by time; `at` is told how many have arrived.
///
/// # Errors
/// Where there is no endpoint to choose.
pub(crate) fn drive(
    setup: &Setup,
    arrivals: &[Arrival],
    at: impl FnMut(usize),
) -> Result<Course, NoEndpoint> {
    Run::new(setup, arrivals).run(at)
}

struct Run<'a> {
    arrivals: &'a [Arrival],
    picker: Picker,
    random: StdRng,
    servers: Vec<Server>,
    flights: Vec<Option<Flight>>,
    served: Vec<Served>,
    /// With the number of each event, so that equal times keep their order.
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    made: u64,
    left: usize,
}

impl Run<'_> {
    fn new<'a>(setup: &Setup, arrivals: &'a [Arrival]) -> Run<'a> {
        let mut picker = Picker::new(setup.policy, setup.settings);
        picker.set_endpoints((0..setup.endpoints).map(|id| Endpoint {
            concurrency: setup.model.places,
            ..Endpoint::new(EndpointId(u64::from(id)))
        }));
        let slowness = |index: u32| setup.slowness.get(index as usize).copied().unwrap_or(1);
        let mut run = Run {
            arrivals,
            picker,
            random: StdRng::seed_from_u64(setup.seed),
            servers: (0..setup.endpoints).map(|index| Server::new(setup.model, slowness(index))).collect(),
            flights: Vec::with_capacity(arrivals.len()),
            served: vec![Served::default(); arrivals.len()],
            events: BinaryHeap::new(),
            made: 0,
            left: arrivals.len(),
        };
        run.make(BEGIN_US, Event::Report);
        run
    }

    fn run(mut self, mut at: impl FnMut(usize)) -> Result<Course, NoEndpoint> {
        for request in 0..self.arrivals.len() {
            let now_us = BEGIN_US.saturating_add(self.arrivals[request].t_us);
            self.events_until(now_us);
            self.arrive(now_us, request)?;
            at(request + 1);
        }
        self.events_until(u64::MAX);
        let busy_place_us = self.servers.iter().map(Server::busy_place_us).collect();
        Ok(Course { served: self.served, busy_place_us })
    }

    /// What ends at the moment at which another arrives has ended.
    fn events_until(&mut self, until_us: u64) {
        while self.left > 0
            && let Some(Reverse((now_us, _, event))) = self.events.peek().copied()
            && now_us <= until_us
        {
            self.events.pop();
            self.happen(now_us, event);
        }
    }

    fn arrive(&mut self, now_us: u64, request: usize) -> Result<(), NoEndpoint> {
        let arrival = &self.arrivals[request];
        let asked = Request {
            key: arrival.key,
            units: arrival.prompt_tokens,
            blocks: &arrival.blocks,
            ..Request::default()
        };
        let picked = self.picker.pick(now_us, self.random.next_u64(), &asked)?;
        let server = self.picker.endpoint(picked).map_or(0, |endpoint| endpoint.id.0 as usize);
        self.flights.push(Some(self.picker.started(now_us, picked, &asked)));
        self.served[request].endpoint = server;
        self.servers[server].join(request);
        self.take(now_us, server);
        Ok(())
    }

    fn happen(&mut self, now_us: u64, event: Event) {
        match event {
            Event::Read { server, request } => {
                self.servers[server].read();
                if let Some(flight) = &mut self.flights[request] {
                    self.picker.answered(now_us, flight);
                }
                self.take(now_us, server);
            }
            Event::End { server, request } => {
                self.servers[server].end(now_us);
                self.left -= 1;
                if let Some(flight) = self.flights[request].take() {
                    let output_units = self.arrivals[request].output_tokens;
                    self.picker.finished(now_us, flight, Outcome::Success { output_units });
                }
                self.take(now_us, server);
            }
            Event::Report => {
                for (id, server) in (0..).zip(&mut self.servers) {
                    self.picker.report(now_us, EndpointId(id), &server.report(now_us));
                }
                self.make(now_us.saturating_add(REPORT_EVERY_US), Event::Report);
            }
        }
    }

    fn take(&mut self, now_us: u64, server: usize) {
        let Some(taken) = self.servers[server].take(now_us, self.arrivals) else { return };
        let Taken { request, found_blocks, read_us, write_us } = taken;
        let read_at_us = now_us.saturating_add(read_us);
        let end_us = read_at_us.saturating_add(write_us);
        self.served[request] =
            Served { endpoint: server, start_us: now_us - BEGIN_US, end_us: end_us - BEGIN_US, found_blocks };
        self.make(read_at_us, Event::Read { server, request });
        self.make(end_us, Event::End { server, request });
    }

    fn make(&mut self, at_us: u64, event: Event) {
        self.events.push(Reverse((at_us, self.made, event)));
        self.made += 1;
    }
}
