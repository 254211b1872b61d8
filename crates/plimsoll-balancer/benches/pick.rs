//! Cost of one pick with the feedback that goes with it, per policy and number of endpoints.
//!
//! `cargo bench -p plimsoll-balancer --bench pick`

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use plimsoll_balancer::{Endpoint, EndpointId, Flight, Outcome, Picker, Policy, Request, Settings};

/// Endpoints of a service.
const SIZES: [u64; 3] = [10, 1_000, 10_000];

/// A service with about one outstanding request an endpoint, and those requests.
struct Service {
    picker: Picker,
    flights: VecDeque<Flight>,
    random: u64,
    now_us: u64,
}

impl Service {
    fn new(policy: Policy, size: u64) -> Service {
        let mut picker = Picker::new(policy, Settings::default());
        picker.set_endpoints((0..size).map(|id| Endpoint::new(EndpointId(id))));
        // Slow start is over.
        let mut service = Service { picker, flights: VecDeque::new(), random: 1, now_us: 3_600_000_000 };
        for _ in 0..size {
            service.start();
        }
        service
    }

    fn draw(&mut self) -> u64 {
        // xorshift64: cheap next to what is measured.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn start(&mut self) {
        let draw = self.draw();
        let request = Request { key: draw, units: 1, ..Request::default() };
        let picked = self.picker.pick(self.now_us, draw, &request).expect("there are endpoints");
        self.flights.push_back(self.picker.started(self.now_us, picked, &request));
    }

    /// The oldest request ends.
    fn finish(&mut self) {
        if let Some(flight) = self.flights.pop_front() {
            self.picker.finished(self.now_us, flight, Outcome::Success { output_units: 1 });
        }
    }
}

fn picks(criterion: &mut Criterion) {
    for name in ["pick", "pick and feedback"] {
        let mut group = criterion.benchmark_group(name);
        group
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1))
            .sample_size(20);
        for policy in Policy::ALL {
            for size in SIZES {
                let mut service = Service::new(policy, size);
                group.bench_function(BenchmarkId::new(policy.name(), size), |bencher| {
                    bencher.iter(|| {
                        if name == "pick" {
                            let draw = service.draw();
                            let request = Request { key: draw, units: 1, ..Request::default() };
                            let _ = black_box(service.picker.pick(service.now_us, draw, &request));
                        } else {
                            service.now_us += 1;
                            service.finish();
                            service.start();
                        }
                    });
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, picks);
criterion_main!(benches);
