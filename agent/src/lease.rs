//! Identity, registration and lease renewal: what the agent says of itself, and what the manager's verdicts mean.
//!
//! A lease is renewed by naming the task in a heartbeat. Silence of the manager ends nothing here: until tasks change
//! hands by fence, nobody else touches the target (settled facts §1.7), and the step's own timer bounds the wait. Only the
//! verdict `lost` does.

use crate::client::VERSION;
use crate::config::Config;
use crate::dialect::{foreign_task_types, own_task_types};
use crate::supervisor::state::{AgentState, LeaseVerdict};
use proto::register::{AgentExt, DelegateParams, HeartbeatResponse, Held, UnregisterRequest, Verdict};

/// Who this agent is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) host: String,
    pub(crate) ip: String,
    pub(crate) instance: String,
    pub(crate) public_key: String,
}

impl Identity {
    /// Body of a registration.
    pub(crate) fn registration(&self, config: &Config, now: u64) -> DelegateParams {
        DelegateParams {
            account_id: config.account_id.clone(),
            delegate_name: config.name.clone(),
            delegate_group_name: Some(config.name.clone()),
            host_name: self.host.clone(),
            ip: self.ip.clone(),
            delegate_type: config.delegate_type.clone(),
            version: VERSION.to_owned(),
            last_heart_beat: i64::try_from(now).unwrap_or(i64::MAX),
            ng: true,
            polling_mode_enabled: true,
            heartbeat_as_object: true,
            // An immutable agent's running tasks are failed when it registers again (protocol.md §2, trap).
            immutable: false,
            proxy: config.proxy.is_some(),
            tags: config.tags.clone(),
            supported_task_types: foreign_task_types(config),
            description: Some(config.description.clone()).filter(|text| !text.is_empty()),
            org_identifier: config.org.clone(),
            project_identifier: config.project.clone(),
            ext: Some(AgentExt {
                version: 1,
                instance_id: self.instance.clone(),
                task_types: own_task_types(config),
                public_key: self.public_key.clone(),
                capacity: u32::try_from(config.capacity.get()).unwrap_or(u32::MAX),
                busy: None,
                held: Vec::new(),
            }),
            ..DelegateParams::default()
        }
    }

    /// Body of a heartbeat: the same, with the load and the leases to renew.
    pub(crate) fn heartbeat(
        &self,
        config: &Config,
        now: u64,
        id: &str,
        state: &AgentState,
    ) -> DelegateParams {
        let mut params = self.registration(config, now);
        params.delegate_id = Some(id.to_owned());
        if let Some(ext) = &mut params.ext {
            ext.busy = Some(u32::try_from(state.load().0).unwrap_or(u32::MAX));
            ext.held = state.held().map(|(task, fence)| Held { task_id: task.to_owned(), fence }).collect();
        }
        params
    }

    /// Body of the leave.
    pub(crate) fn leave(&self, config: &Config, id: &str) -> UnregisterRequest {
        UnregisterRequest {
            delegate_id: id.to_owned(),
            host_name: self.host.clone(),
            ng: true,
            delegate_type: config.delegate_type.clone(),
            ip_address: self.ip.clone(),
            ..UnregisterRequest::default()
        }
    }
}

/// The verdicts of a heartbeat's reply, as the state machine reads them.
pub(crate) fn verdicts(reply: &HeartbeatResponse) -> Vec<(String, LeaseVerdict)> {
    let verdicts = reply.ext.as_ref().map(|ext| ext.verdicts.as_slice()).unwrap_or_default();
    verdicts
        .iter()
        .map(|one| {
            let verdict = match one.verdict {
                Verdict::Keep => LeaseVerdict::Keep,
                Verdict::Lost => LeaseVerdict::Lost,
                Verdict::Abort => LeaseVerdict::Abort,
            };
            (one.task_id.clone(), verdict)
        })
        .collect()
}

/// The address this machine would reach the manager from; nothing is sent. Falls back to loopback, so that it always is
/// an address.
pub(crate) fn own_address(manager_url: &str) -> String {
    let found = || {
        let url = url::Url::parse(manager_url).ok()?;
        let to = url.socket_addrs(|| None).ok()?.into_iter().next()?;
        let any: std::net::SocketAddr =
            if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = std::net::UdpSocket::bind(any).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip().to_string())
    };
    found().unwrap_or_else(|| "127.0.0.1".to_owned())
}
