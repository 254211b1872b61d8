//! `plimsoll get`: lists of things, and lists that follow what happens.

use std::collections::BTreeMap;

use clap::Args;
use plimsoll_client::v1::policy_object::Object;
use plimsoll_client::v1::{
    Class, Contention, GetClassRequest, GetNodeLimitsRequest, GetNodeRequest, GetNodeSamplesRequest,
    GetPoolRequest, GetQueueRequest, GetQuotaRequest, GetScalingPolicyRequest, GetScheduleRequest,
    GetServiceRequest, GetValidatorRequest, ListClassesRequest, ListContentionsRequest, ListEndpointsRequest,
    ListNodeLimitsRequest, ListNodesRequest, ListPoolsRequest, ListQueuesRequest, ListQuotasRequest,
    ListReservationsRequest, ListScalingPoliciesRequest, ListSchedulesRequest, ListServicesRequest,
    ListValidatorsRequest, Node, NodeLimits, NodeState, Reservation, ReservationState, Validator,
};
use plimsoll_client::{Client, Listed};

use super::apply_files::documents;
use super::cluster::member_rows;
use super::events::Events;
use super::lifecycle::look_up_at;
use super::noun::Noun;
use super::watch_list::follow;
use crate::args::{AsOf, Globals, read_selector};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{
    DeviceRow, EndpointRow, Footer, Format, NodeRow, Out, PoolRow, QueueRow, QuotaRow, ScalingRow,
    ScheduleRow, ServiceRow, Shown, endpoint_state,
};

/// Nodes whose samples are asked for at once: as many as one answer has.
const MOST_SAMPLES: usize = 1_000;

/// Shows things.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Get {
    /// Kind of thing: nodes, devices, pools, reservations, classes, limits, queues, quotas, schedules, services, endpoints, scaling, contentions, members, events
    #[arg(value_name = "NOUN")]
    noun: Option<Noun>,
    /// Names; all without
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Only of this pool
    #[arg(long, value_name = "POOL")]
    pub(crate) pool: Option<String>,
    /// Only in these states
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub(crate) state: Vec<String>,
    /// Nodes and devices: only where these labels hold: zone=a,gpu!=t4
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Reservations: only with something on this node
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Reservations: only of this team, user or namespace
    #[arg(long, alias = "team", value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// Reservations: only of this class
    #[arg(long, value_name = "CLASS")]
    pub(crate) class: Option<String>,
    /// Reservations: only with this name for people
    #[arg(long, value_name = "NAME")]
    pub(crate) named: Option<String>,
    /// Reservations and contentions: those that have ended too
    #[arg(long, short = 'a')]
    pub(crate) all: bool,
    /// Follow what happens: redrawn on a terminal, one JSON document a change elsewhere
    #[arg(long, short = 'w')]
    watch: bool,
    /// As it was at a revision (1042), so long ago (10m) or at a time (2026-11-21T22:00:00Z)
    #[arg(long, value_name = "REVISION|TIME", conflicts_with = "watch")]
    as_of: Option<AsOf>,
}

/// Writes the method that reads policy objects of one kind, those that are named or all: what of an answer about one is shown, and what of all.
macro_rules! reads {
    ($read:ident: $what:literal, $get:ident($Get:ident), $all:ident($List:ident) -> $Row:ident,
     |$answer:ident| $one:expr, |$item:pat_param| $row:expr) => {
        async fn $read(&self, client: &Client, globals: &Globals) -> Result<Listed<$Row>, CliError> {
            let (consistency, (as_of_revision, as_of_ms)) = (globals.consistency(), self.at());
            if self.names.is_empty() {
                let request = $List { consistency, as_of_revision, as_of_ms, ..$List::default() };
                let all = client.$all(request).await?;
                let items = all.items.into_iter().map(|$item| $row).collect();
                return Ok(Listed { revision: all.revision, age_ms: all.age_ms, items });
            }
            let mut listed = Listed::default();
            for name in &self.names {
                let request =
                    $Get { name: name.clone(), consistency, as_of_revision, as_of_ms, ..$Get::default() };
                let $answer = client.$get(request).await.map_err(|error| not_shown($what, name, error))?;
                (listed.revision, listed.age_ms) = ($answer.revision, $answer.age_ms);
                listed.items.extend($one);
            }
            Ok(listed)
        }
    };
}

/// Objects with what each looks like now.
macro_rules! with_status {
    ($read:ident: $what:literal, $get:ident($Get:ident), $all:ident($List:ident) -> $Row:ident { $object:ident }) => {
        reads!($read: $what, $get($Get), $all($List) -> $Row,
            |answer| Some($Row {
                $object: answer.$object.unwrap_or_default(),
                status: answer.status.unwrap_or_default(),
            }),
            |($object, status)| $Row { $object, status });
    };
}

/// Objects that are what they say and no more.
macro_rules! plain {
    ($read:ident: $what:literal, $get:ident($Get:ident), $all:ident($List:ident) -> $Object:ident { $object:ident }) => {
        reads!($read: $what, $get($Get), $all($List) -> $Object, |answer| answer.$object, |object| object);
    };
}

impl Get {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let Some(noun) = self.noun else {
            return Err(CliError::usage("get what?")
                .help("plimsoll get nodes|devices|pools|reservations|classes|limits|queues|validators|services|endpoints|scaling|contentions|members|events"));
        };
        let client = globals.client()?;
        if self.watch {
            return follow(&client, globals, noun, &self, &self.names).await;
        }
        let out = globals.out();
        match noun {
            Noun::Node => {
                let listed = self.nodes(&client, globals).await?;
                let footer = self.footer(noun, &listed, "add -o wide for labels and what they measure");
                // Of another time nothing is known: it is in no history.
                let with_samples = matches!(out.format, Format::Wide | Format::Csv) && self.at() == (0, 0);
                let rows = node_rows(&client, listed.items, with_samples).await;
                out.list(&rows, Some(&footer))?;
            }
            Noun::Device => {
                let listed = self.nodes(&client, globals).await?;
                let rows = device_rows(&listed.items, &self.names);
                out.list(&rows, Some(&self.footer(noun, &listed, "")))?;
            }
            Noun::Pool => {
                self.policy(&out, self.pools(&client, globals).await?, |row| Object::Pool(row.pool))?;
            }
            Noun::Reservation => {
                let listed = self.reservations(&client, globals).await?;
                let hint = if self.all { "" } else { "add -a for those that have ended" };
                out.list(&listed.items, Some(&self.footer(noun, &listed, hint)))?;
            }
            Noun::Class => {
                self.policy(&out, self.classes(&client, globals).await?, Object::Class)?;
            }
            Noun::Limits => {
                self.policy(&out, self.limits(&client, globals).await?, Object::NodeLimits)?;
            }
            Noun::Queue => {
                self.policy(&out, self.queues(&client, globals).await?, |row| Object::Queue(row.queue))?;
            }
            Noun::Quota => {
                self.policy(&out, self.quotas(&client, globals).await?, |row| Object::Quota(row.quota))?;
            }
            Noun::Validator => {
                self.policy(&out, self.validators(&client, globals).await?, Object::Validator)?;
            }
            Noun::Schedule => {
                self.policy(&out, self.schedules(&client, globals).await?, |row| {
                    Object::Schedule(row.schedule)
                })?;
            }
            Noun::Service => {
                self.policy(&out, self.services(&client, globals).await?, |row| {
                    Object::Service(row.service)
                })?;
            }
            Noun::Scaling => {
                self.policy(&out, self.scalings(&client, globals).await?, |row| {
                    Object::ScalingPolicy(row.scaling_policy)
                })?;
            }
            Noun::Contention => {
                let listed = self.contentions(&client, globals).await?;
                let hint = if self.all { "" } else { "add -a for those that have ended" };
                out.list(&listed.items, Some(&self.footer(noun, &listed, hint)))?;
            }
            Noun::Endpoint => {
                let listed = self.endpoints(&client, globals).await?;
                out.list(&listed.items, Some(&self.footer(noun, &listed, "add -o wide for weights")))?;
            }
            Noun::Member => out.list(&member_rows(&client, globals).await?, None)?,
            Noun::Event => return Events::all(self.pool.clone(), self.as_of).run(globals).await,
        }
        Ok(Exit::Done)
    }

    /// Policy objects of one kind. In YAML they are what files hold: to be changed and applied again.
    fn policy<T: Shown>(
        &self,
        out: &Out,
        listed: Listed<T>,
        object: impl Fn(T) -> Object,
    ) -> Result<(), CliError> {
        if out.format == Format::Yaml {
            return out.document(&documents(listed.items.into_iter().map(object))?);
        }
        let footer = self.noun.map(|noun| self.footer(noun, &listed, ""));
        out.list(&listed.items, footer.as_ref())
    }

    /// Reservations that were asked for.
    pub(crate) async fn reservations(
        &self,
        client: &Client,
        globals: &Globals,
    ) -> Result<Listed<Reservation>, CliError> {
        if !self.names.is_empty() {
            let mut listed = Listed::default();
            for name in &self.names {
                listed.items.push(
                    look_up_at(client, name, globals, self.at())
                        .await
                        .map_err(|error| not_shown("reservation", name, error))?,
                );
            }
            return Ok(listed);
        }
        Ok(client.all_reservations(self.reservation_filter(globals)?).await?)
    }

    /// Revision and time of `--as-of`; 0 for what is not given.
    fn at(&self) -> (u64, u64) {
        AsOf::fields(self.as_of)
    }

    /// The filter of reservations.
    pub(crate) fn reservation_filter(&self, globals: &Globals) -> Result<ListReservationsRequest, CliError> {
        let states: Vec<i32> = self.state.iter().map(|word| state(word)).collect::<Result<_, _>>()?;
        Ok(ListReservationsRequest {
            pool: self.pool.clone().unwrap_or_default(),
            live_only: !self.all && states.is_empty(),
            states,
            class: self.class.clone().unwrap_or_default(),
            tenant: self.tenant.clone().unwrap_or_default(),
            node: self.node.clone().unwrap_or_default(),
            spec_name: self.named.clone().unwrap_or_default(),
            consistency: globals.consistency(),
            as_of_revision: self.at().0,
            as_of_ms: self.at().1,
            with_start: true,
            ..ListReservationsRequest::default()
        })
    }

    async fn nodes(&self, client: &Client, globals: &Globals) -> Result<Listed<Node>, CliError> {
        // Devices are named by their own ids, so their nodes are all looked at.
        if !self.names.is_empty() && self.noun == Some(Noun::Node) {
            let mut listed = Listed::default();
            for name in &self.names {
                let request = GetNodeRequest {
                    name: name.clone(),
                    consistency: globals.consistency(),
                    min_revision: 0,
                    as_of_revision: self.at().0,
                    as_of_ms: self.at().1,
                };
                let answer =
                    client.get_node(request).await.map_err(|error| not_shown("node", name, error))?;
                (listed.revision, listed.age_ms) = (answer.revision, answer.age_ms);
                listed.items.extend(answer.node);
            }
            return Ok(listed);
        }
        let states = self.state.iter().map(|word| node_state(word)).collect::<Result<_, _>>()?;
        let request = ListNodesRequest {
            pool: self.pool.clone().unwrap_or_default(),
            states,
            select: self.selector.as_deref().map(read_selector).transpose()?.unwrap_or_default(),
            consistency: globals.consistency(),
            as_of_revision: self.at().0,
            as_of_ms: self.at().1,
            ..ListNodesRequest::default()
        };
        Ok(client.all_nodes(request).await?)
    }

    with_status!(pools: "pool", get_pool(GetPoolRequest), all_pools(ListPoolsRequest) -> PoolRow { pool });
    with_status!(queues: "queue", get_queue(GetQueueRequest), all_queues(ListQueuesRequest) -> QueueRow { queue });
    with_status!(quotas: "quota", get_quota(GetQuotaRequest), all_quotas(ListQuotasRequest) -> QuotaRow { quota });
    with_status!(schedules: "schedule", get_schedule(GetScheduleRequest), all_schedules(ListSchedulesRequest) -> ScheduleRow { schedule });
    reads!(services: "service", get_service(GetServiceRequest), all_services(ListServicesRequest) -> ServiceRow,
        |answer| Some(ServiceRow {
            service: answer.service.unwrap_or_default(),
            status: answer.status.unwrap_or_default(),
            rightsizing: answer.rightsizing,
        }),
        |(service, status)| ServiceRow { service, status, rightsizing: Vec::new() });
    with_status!(scalings: "scaling policy", get_scaling_policy(GetScalingPolicyRequest), all_scaling_policies(ListScalingPoliciesRequest) -> ScalingRow { scaling_policy });
    plain!(classes: "class", get_class(GetClassRequest), all_classes(ListClassesRequest) -> Class { class });
    plain!(limits: "limits", get_node_limits(GetNodeLimitsRequest), all_node_limits(ListNodeLimitsRequest) -> NodeLimits { node_limits });
    plain!(validators: "validator", get_validator(GetValidatorRequest), all_validators(ListValidatorsRequest) -> Validator { validator });

    /// Contentions named `POOL/RESOURCE`, or all.
    async fn contentions(&self, client: &Client, globals: &Globals) -> Result<Listed<Contention>, CliError> {
        let (as_of_revision, as_of_ms) = self.at();
        let request = ListContentionsRequest {
            pool: self.pool.clone().unwrap_or_default(),
            include_ended: self.all,
            consistency: globals.consistency(),
            as_of_revision,
            as_of_ms,
            ..ListContentionsRequest::default()
        };
        let mut listed = client.all_contentions(request).await?;
        listed.items.retain(|one| self.names.is_empty() || self.names.contains(&one.id()));
        Ok(listed)
    }

    /// Endpoints of the services named, or of all.
    async fn endpoints(&self, client: &Client, globals: &Globals) -> Result<Listed<EndpointRow>, CliError> {
        let services = self.services(client, globals).await?;
        let mut listed = Listed { revision: services.revision, age_ms: services.age_ms, items: Vec::new() };
        for service in services.items {
            let name = service.service.name;
            let request = ListEndpointsRequest {
                service: name.clone(),
                consistency: globals.consistency(),
                as_of_revision: self.at().0,
                as_of_ms: self.at().1,
                ..ListEndpointsRequest::default()
            };
            let found = client.all_endpoints(request).await?;
            listed.revision = listed.revision.max(found.revision);
            let rows =
                found.items.into_iter().map(|endpoint| EndpointRow { service: name.clone(), endpoint });
            listed.items.extend(rows.filter(|row| {
                let state = endpoint_state(row.endpoint.state());
                (self.state.is_empty() || self.state.contains(&state))
                    && self.node.as_ref().is_none_or(|node| row.endpoint.node == *node)
            }));
        }
        Ok(listed)
    }

    fn footer<T>(&self, noun: Noun, listed: &Listed<T>, hint: &str) -> Footer {
        let filters =
            [("pool", &self.pool), ("node", &self.node), ("tenant", &self.tenant), ("class", &self.class)];
        let mut parts: Vec<String> =
            filters.iter().filter_map(|(key, value)| Some(format!("{key} {}", value.as_ref()?))).collect();
        parts.extend(self.selector.iter().cloned());
        parts.extend(Some(self.state.join("|")).filter(|states| !states.is_empty()));
        Footer {
            noun: noun.plural().to_owned(),
            filter: parts.join(", "),
            revision: listed.revision,
            age_ms: listed.age_ms,
            hint: hint.to_owned(),
        }
    }
}

/// Nodes, with what they measured last where that is wanted and somebody knows it.
pub(crate) async fn node_rows(client: &Client, nodes: Vec<Node>, with_samples: bool) -> Vec<NodeRow> {
    let mut measured = BTreeMap::new();
    let asked = if with_samples { nodes.as_slice() } else { &[] };
    for part in asked.chunks(MOST_SAMPLES) {
        let names = part.iter().map(|node| node.id.clone()).collect();
        match client.get_node_samples(GetNodeSamplesRequest { names }).await {
            Ok(answer) => measured.extend(answer.nodes.into_iter().map(|one| (one.node.clone(), one))),
            // The nodes are worth showing without it: where nobody leads, or the leader is of an older build.
            Err(error) => tracing::debug!(%error, "what nodes measure is not known"),
        }
    }
    let row = |node: Node| NodeRow { measured: measured.remove(&node.id), node };
    nodes.into_iter().map(row).collect()
}

/// Devices of nodes; only those named by id, by node, or by `node/index`, where any are named.
fn device_rows(nodes: &[Node], names: &[String]) -> Vec<DeviceRow> {
    let row = |node: &Node| {
        let name = node.id.clone();
        node.devices
            .clone()
            .into_iter()
            .map(move |device| DeviceRow { node: name.clone(), device })
            .collect::<Vec<_>>()
    };
    let named = |row: &DeviceRow| {
        let place = format!("{}/{}", row.node, row.device.index);
        names.is_empty() || names.iter().any(|name| *name == row.id() || *name == row.node || *name == place)
    };
    nodes.iter().flat_map(row).filter(named).collect()
}

fn not_shown(kind: &str, name: &str, error: plimsoll_client::Error) -> CliError {
    CliError::from(error).asked(format!("cannot show {kind} {name}"))
}

fn state(word: &str) -> Result<i32, CliError> {
    let name = format!("RESERVATION_STATE_{}", word.to_uppercase());
    let found =
        ReservationState::from_str_name(&name).filter(|state| *state != ReservationState::Unspecified);
    found.map(i32::from).ok_or_else(|| {
        let names = (1..).map_while(|number| ReservationState::try_from(number).ok());
        let words: Vec<String> = names.map(crate::output::reservation_state).collect();
        CliError::usage(format!("reservations have no state {word:?}"))
            .help(format!("there are: {}", words.join(", ")))
    })
}

fn node_state(word: &str) -> Result<i32, CliError> {
    let name = format!("NODE_STATE_{}", word.to_uppercase());
    let found = NodeState::from_str_name(&name).filter(|state| *state != NodeState::Unspecified);
    found.map(i32::from).ok_or_else(|| {
        CliError::usage(format!("nodes have no state {word:?}"))
            .help("there are: available, cordoned, draining, suspect, lost, fenced, failed")
    })
}
