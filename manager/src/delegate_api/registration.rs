//! Register, heartbeat, unregister.

use super::access::Caller;
use super::reply::{Refusal, wrapped};
use crate::app::App;
use crate::store::Agent;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use proto::ids::Id;
use proto::limits::{CONNECTED_FOR, HEARTBEAT_INTERVAL};
use proto::register::{
    AgentExt, DelegateParams, DelegateStatus, Feature, HeartbeatExt, HeartbeatResponse, ManagerExt,
    RegisterResponse, UnregisterRequest,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Version of the extensions that this manager speaks.
const EXT_VERSION: u32 = 1;

/// A heartbeat that says nothing new is stored at most this often. Being connected is known in memory; the stored time
/// only has to survive a restart of the manager.
const STORE_HEARTBEAT_MS: u64 = 30_000;

/// Longest text of an identity field; longer ones are not names.
const MAX_NAME: usize = 512;

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    // The content type is not looked at: foreign clients set it at random. The body is not repeated: it may hold secrets.
    serde_json::from_slice(body).map_err(|e| {
        Refusal::invalid(format!(
            "the body is not what this call takes (line {}, column {})",
            e.line(),
            e.column()
        ))
    })
}

/// The identity of a client without `instanceId`. Java's Kubernetes delegates change their address with every pod.
fn address(params: &DelegateParams) -> String {
    let ignored = params.ng && params.delegate_type == "KUBERNETES";
    if ignored { String::new() } else { params.ip.clone() }
}

fn agent_of(params: &DelegateParams, id: String, now: u64) -> Agent {
    let ext = params.ext.clone().unwrap_or_default();
    let mut tags: Vec<String> =
        params.tags.iter().map(|tag| tag.trim().to_owned()).filter(|t| !t.is_empty()).collect();
    tags.dedup();
    Agent {
        id,
        instance_id: ext.instance_id.clone(),
        name: if params.delegate_name.is_empty() {
            params.host_name.clone()
        } else {
            params.delegate_name.clone()
        },
        host_name: params.host_name.clone(),
        ip: address(params),
        version: params.version.clone(),
        tags,
        task_types: params.supported_task_types.iter().chain(&ext.task_types).cloned().collect(),
        extended: params.ext.is_some(),
        public_key: ext.public_key.clone(),
        capacity: ext.capacity,
        busy: ext.busy.unwrap_or(0),
        last_heartbeat: now,
        gone: false,
    }
}

fn check(params: &DelegateParams, caller: &Caller) -> Result<(), Refusal> {
    if !params.account_id.is_empty() && params.account_id != caller.account {
        return Err(Refusal::invalid("`accountId` in the body is not the one of the request"));
    }
    let instance = params.ext.as_ref().map_or("", |ext| ext.instance_id.as_str());
    if instance.is_empty() && params.host_name.is_empty() {
        return Err(Refusal::invalid(
            "`hostName` is empty: without it and `delegateExt.instanceId` the agent has no identity",
        ));
    }
    let names = [&params.host_name, &params.delegate_name, &params.ip, &params.version];
    if names.iter().any(|name| name.len() > MAX_NAME) || instance.len() > MAX_NAME {
        return Err(Refusal::invalid(format!("a name is longer than {MAX_NAME} bytes")));
    }
    Ok(())
}

fn new_id() -> String {
    Id::from_bytes(*uuid::Uuid::new_v4().as_bytes()).to_string()
}

/// Stores the agent and tells the queue. The caller holds [`registering`](crate::queue::Queue::registering): one at a
/// time, so that two registrations of one agent get one id.
async fn take_over(
    app: &App,
    params: &DelegateParams,
    id: Option<String>,
    registered: bool,
) -> Result<Agent, Refusal> {
    let instance = params.ext.as_ref().map_or("", |ext| ext.instance_id.as_str());
    let known = app.queue.find_agent(instance, &params.host_name, &address(params));
    let id = known.map(|agent| agent.id).or(id).unwrap_or_else(new_id);
    let agent = agent_of(params, id, app.clock.wall());
    app.store.put_agent(agent.clone()).await?;
    app.queue.put_agent(agent.clone(), registered);
    Ok(agent)
}

pub(super) async fn register(
    State(app): State<App>,
    caller: Caller,
    body: Bytes,
) -> Result<Response, Refusal> {
    let params: DelegateParams = read(&body)?;
    check(&params, &caller)?;
    let one = app.queue.registering().await;
    let agent = take_over(&app, &params, None, true).await?;
    drop(one);
    tracing::info!(agent = %agent.name, id = %agent.id, token = %caller.token, tags = ?agent.tags, "registered");
    let ext = params.ext.is_some().then(|| ManagerExt {
        version: EXT_VERSION,
        features: Feature::ALL.to_vec(),
        lease_ms: u64::try_from(CONNECTED_FOR.as_millis()).unwrap_or(u64::MAX),
        heartbeat_ms: u64::try_from(HEARTBEAT_INTERVAL.as_millis()).unwrap_or(u64::MAX),
    });
    Ok(wrapped(RegisterResponse { delegate_id: agent.id, ext, ..RegisterResponse::default() }))
}

pub(super) async fn heartbeat(
    State(app): State<App>,
    caller: Caller,
    body: Bytes,
) -> Result<Response, Refusal> {
    let params: DelegateParams = read(&body)?;
    check(&params, &caller)?;
    let id = params.delegate_id.clone().filter(|id| is_id(id));
    // One that takes leave meanwhile must not be brought back.
    let one = app.queue.registering().await;
    let known = match &id {
        Some(id) => app.queue.agent(id),
        None => None,
    };
    if let Some(known) = &known
        && known.gone
    {
        let status = DelegateStatus::Deleted;
        return Ok(wrapped(HeartbeatResponse {
            delegate_id: known.id.clone(),
            status,
            ..HeartbeatResponse::default()
        }));
    }
    let now = app.clock.wall();
    let agent = match known {
        Some(known) => {
            let said = agent_of(&params, known.id.clone(), now);
            let fresh = Agent { last_heartbeat: known.last_heartbeat, busy: known.busy, ..said.clone() };
            // A clock that was set back must not keep heartbeats from being stored.
            let stored_long_ago = now.abs_diff(app.queue.heartbeat_stored(&known.id)) >= STORE_HEARTBEAT_MS;
            if fresh != known || stored_long_ago {
                app.store.put_agent(said.clone()).await?;
                app.queue.stored_heartbeat(&known.id, now);
            }
            app.queue.put_agent(said.clone(), false);
            said
        }
        // The manager lost its memory, or never had it: a heartbeat carries everything a registration does.
        None => take_over(&app, &params, id, true).await?,
    };
    drop(one);
    let held = params.ext.as_ref().map(|ext: &AgentExt| ext.held.as_slice());
    let verdicts = app.queue.heartbeat(&agent.id, held);
    let ext = params.ext.is_some().then_some(HeartbeatExt { verdicts });
    Ok(wrapped(HeartbeatResponse {
        delegate_id: agent.id,
        status: DelegateStatus::Enabled,
        ext,
        ..HeartbeatResponse::default()
    }))
}

/// Foreign ids are any short text of URL characters.
fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

pub(super) async fn unregister(
    State(app): State<App>,
    _caller: Caller,
    body: Bytes,
) -> Result<Response, Refusal> {
    let request: UnregisterRequest = read(&body)?;
    let _one = app.queue.registering().await;
    let known = match app.queue.agent(&request.delegate_id) {
        Some(known) => Some(known),
        None if request.host_name.is_empty() => None,
        None => app.queue.find_agent("", &request.host_name, &request.ip_address),
    };
    if let Some(known) = known {
        let gone = Agent { gone: true, busy: 0, ..known };
        app.store.put_agent(gone.clone()).await?;
        tracing::info!(agent = %gone.name, id = %gone.id, "unregistered");
        app.queue.put_agent(gone, false);
    }
    Ok(wrapped::<Value>(json!(null)))
}
