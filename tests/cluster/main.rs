//! Three coordinator processes with RocksDB and fsync: what they acknowledge is there afterwards, whatever is killed.

mod failover;
mod fleet;
mod membership;
mod openb;
mod rate_limits;
mod rolled_back;
mod scaling;
mod services;
mod stock_clients;
mod stop;
mod wiped;
