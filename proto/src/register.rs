//! Registration, heartbeat and their replies. **Source**: protocol facts §1.5, §2, §3; ADR 0002 for `delegateExt`.

use crate::tolerance;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Body of a registration and of a heartbeat.
///
/// **Shape**: unknown fields are ignored, `null` is the default of every field. Credentials that some clients repeat
/// here (`token`, `delegateRandomToken`) are read into a type that hides them, and never written. The bodies themselves
/// must not be logged.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DelegateParams {
    /// Account.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub account_id: String,
    /// Set in heartbeats and when an agent registers again.
    #[serde(deserialize_with = "tolerance::text_or_number", skip_serializing_if = "Option::is_none")]
    pub delegate_id: Option<String>,
    /// With `ng`, the key of the group.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub delegate_name: String,
    /// Host name; part of the identity of clients without `delegateExt.instanceId`.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub host_name: String,
    /// Address; need not parse (dlite writes `fake-…`).
    #[serde(deserialize_with = "tolerance::null_default")]
    pub ip: String,
    /// `DOCKER`, `KUBERNETES`, `SHELL_SCRIPT`, …
    #[serde(deserialize_with = "tolerance::null_default")]
    pub delegate_type: String,
    /// `yy.mm.build`.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub version: String,
    /// Working directory.
    #[serde(deserialize_with = "tolerance::null_default", skip_serializing_if = "String::is_empty")]
    pub location: String,
    /// Epoch milliseconds.
    #[serde(deserialize_with = "tolerance::integer")]
    pub last_heart_beat: i64,
    /// True for all modern agents.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub ng: bool,
    /// The agent polls instead of holding a web socket.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub polling_mode_enabled: bool,
    /// True for all modern agents.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub heartbeat_as_object: bool,
    /// An immutable agent's running tasks are failed when it registers again. Ours says `false`.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub immutable: bool,
    /// ECS agents only.
    #[serde(deserialize_with = "tolerance::null_default", skip_serializing_if = "std::ops::Not::not")]
    pub keep_alive_packet: bool,
    /// The agent speaks through a proxy.
    #[serde(deserialize_with = "tolerance::null_default", skip_serializing_if = "std::ops::Not::not")]
    pub proxy: bool,
    /// Community edition.
    #[serde(deserialize_with = "tolerance::null_default", skip_serializing_if = "std::ops::Not::not")]
    pub ce_enabled: bool,
    /// Declared by dlite, never sent.
    #[serde(deserialize_with = "tolerance::null_default", skip_serializing_if = "std::ops::Not::not")]
    pub connected: bool,
    /// Tags, trimmed.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub tags: Vec<String>,
    /// Task families for which a foreign manager may offer tasks.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub supported_task_types: Vec<String>,
    /// Exists; nobody fills it.
    #[serde(deserialize_with = "tolerance::null_default", skip_serializing_if = "Vec::is_empty")]
    pub currently_executing_delegate_tasks: Vec<String>,
    /// Base64 of a time-based UUID; a foreign manager detects restarts by it.
    #[serde(deserialize_with = "tolerance::text_or_number", skip_serializing_if = "Option::is_none")]
    pub delegate_connection_id: Option<String>,
    /// Name of the group.
    #[serde(deserialize_with = "tolerance::text_or_number", skip_serializing_if = "Option::is_none")]
    pub delegate_group_name: Option<String>,
    /// Id of the group.
    #[serde(deserialize_with = "tolerance::text_or_number", skip_serializing_if = "Option::is_none")]
    pub delegate_group_id: Option<String>,
    /// Profile.
    #[serde(deserialize_with = "tolerance::text_or_number", skip_serializing_if = "Option::is_none")]
    pub delegate_profile_id: Option<String>,
    /// Session.
    #[serde(deserialize_with = "tolerance::text_or_number", skip_serializing_if = "Option::is_none")]
    pub session_identifier: Option<String>,
    /// `SMALL`, `LARGE`, …
    #[serde(deserialize_with = "tolerance::text_or_number", skip_serializing_if = "Option::is_none")]
    pub delegate_size: Option<String>,
    /// For people; overwrites the group's.
    #[serde(deserialize_with = "tolerance::text_or_number", skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Organisation; the token's when absent.
    #[serde(deserialize_with = "tolerance::text_or_number", skip_serializing_if = "Option::is_none")]
    pub org_identifier: Option<String>,
    /// Project; the token's when absent.
    #[serde(deserialize_with = "tolerance::text_or_number", skip_serializing_if = "Option::is_none")]
    pub project_identifier: Option<String>,
    /// Name of the token in use.
    #[serde(deserialize_with = "tolerance::text_or_number", skip_serializing_if = "Option::is_none")]
    pub token_name: Option<String>,
    /// Java heartbeats repeat the bearer here.
    #[serde(deserialize_with = "hidden", skip_serializing)]
    pub token: Option<SecretString>,
    /// dlite writes the raw account secret here.
    #[serde(deserialize_with = "hidden", skip_serializing)]
    pub delegate_random_token: Option<SecretString>,
    /// A string, or a number from dlite.
    #[serde(deserialize_with = "tolerance::text_or_number", skip_serializing_if = "Option::is_none")]
    pub sequence_num: Option<String>,
    /// Ours.
    #[serde(
        rename = "delegateExt",
        deserialize_with = "readable_ext",
        skip_serializing_if = "Option::is_none"
    )]
    pub ext: Option<AgentExt>,
}

/// What our agent adds to [`DelegateParams`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentExt {
    /// Version of the extensions: 1.
    pub version: u32,
    /// Identity of the agent, stable over restarts.
    pub instance_id: String,
    /// Task families of our own dialect that it takes.
    pub task_types: Vec<String>,
    /// Base64 of the X25519 key that secrets are sealed to.
    pub public_key: String,
    /// How many tasks it runs at once.
    pub capacity: u32,
    /// How many it runs at present. Heartbeats only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy: Option<u32>,
    /// Tasks whose leases this heartbeat renews. Heartbeats only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Held>,
}

/// A task that an agent holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// The task.
    pub task_id: String,
    /// Fence under which it was acquired.
    #[serde(default)]
    pub fence: u64,
}

/// `resource` of the reply to a registration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterResponse {
    /// Id that all later calls carry. Never empty from us.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub delegate_id: String,
    /// `SELF_DESTRUCT` or `MIGRATE`.
    #[serde(deserialize_with = "tolerance::text_or_number")]
    pub action: Option<String>,
    /// Where to register instead.
    #[serde(deserialize_with = "tolerance::text_or_number")]
    pub migrate_url: Option<String>,
    /// ECS agents only.
    #[serde(deserialize_with = "tolerance::text_or_number")]
    pub sequence_num: Option<String>,
    /// What this manager offers beyond the protocol. Absent from foreign managers.
    #[serde(
        rename = "delegateExt",
        deserialize_with = "readable_ext",
        skip_serializing_if = "Option::is_none"
    )]
    pub ext: Option<ManagerExt>,
}

/// What a manager offers (ADR 0002). What is not listed is off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ManagerExt {
    /// Version of the extensions: 1.
    pub version: u32,
    /// What is on. Unknown names are left out while reading.
    #[serde(deserialize_with = "known_features")]
    pub features: Vec<Feature>,
    /// Life of a lease without renewal, milliseconds.
    pub lease_ms: u64,
    /// Pause between two heartbeats that the manager wants, milliseconds. 0 leaves it to the agent.
    pub heartbeat_ms: u64,
}

impl ManagerExt {
    /// Whether `feature` is on.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }
}

/// One extension of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Feature {
    /// `wait_ms` on task events.
    LongPoll,
    /// Fences and leases.
    Fence,
    /// Checkpoints at the manager.
    Checkpoint,
    /// Unit progress.
    Progress,
    /// `resume` and `seq` on log streams.
    StreamResume,
    /// Secrets sealed to the agent.
    SealedSecrets,
    /// `busy` and `capacity` are heeded.
    Busy,
    /// Many calls about log streams in one request.
    LogBatch,
    /// A short log in one call: opened, written and closed.
    LogWhole,
    /// Many calls about tasks in one request.
    TaskBatch,
}

impl Feature {
    /// Every feature, in the order of the ADR.
    pub const ALL: [Feature; 10] = [
        Feature::LongPoll,
        Feature::Fence,
        Feature::Checkpoint,
        Feature::Progress,
        Feature::StreamResume,
        Feature::SealedSecrets,
        Feature::Busy,
        Feature::LogBatch,
        Feature::LogWhole,
        Feature::TaskBatch,
    ];
}

/// `resource` of the reply to a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatResponse {
    /// Whose heartbeat it was.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub delegate_id: String,
    /// How the manager sees the agent.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub status: DelegateStatus,
    /// Always `false` from us.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub use_cdn: bool,
    /// Java only.
    #[serde(deserialize_with = "tolerance::text_or_number")]
    pub jre_version: Option<String>,
    /// ECS agents only.
    #[serde(deserialize_with = "tolerance::text_or_number")]
    pub sequence_number: Option<String>,
    /// Ours.
    #[serde(
        rename = "delegateExt",
        deserialize_with = "readable_ext",
        skip_serializing_if = "Option::is_none"
    )]
    pub ext: Option<HeartbeatExt>,
}

/// How a manager sees an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DelegateStatus {
    /// May take tasks.
    #[default]
    Enabled,
    /// A person has to approve it first.
    WaitingForApproval,
    /// Deprecated; takes no tasks.
    Disabled,
    /// Deleted: ends.
    Deleted,
    /// A word this build does not know; treated as enabled.
    #[serde(other)]
    Unknown,
}

/// What our manager adds to the reply to a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatExt {
    /// One for each task in `held`.
    pub verdicts: Vec<TaskVerdict>,
}

/// What is to become of one held task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskVerdict {
    /// The task.
    pub task_id: String,
    /// The verdict.
    pub verdict: Verdict,
}

/// What is to become of a held task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Somebody else may own it: stop touching the target.
    Lost,
    /// End it.
    Abort,
    /// The lease is renewed. Also what an unknown word means: a newer manager never ends work by a word this build
    /// cannot read.
    #[serde(other)]
    Keep,
}

/// Body of `POST …/unregister`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnregisterRequest {
    /// Id from the registration.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub delegate_id: String,
    /// Host name.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub host_name: String,
    /// True for all modern agents.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub ng: bool,
    /// As registered.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub delegate_type: String,
    /// Address as registered.
    #[serde(deserialize_with = "tolerance::null_default")]
    pub ip_address: String,
    /// Organisation.
    #[serde(deserialize_with = "tolerance::text_or_number", skip_serializing_if = "Option::is_none")]
    pub org_identifier: Option<String>,
    /// Project.
    #[serde(deserialize_with = "tolerance::text_or_number", skip_serializing_if = "Option::is_none")]
    pub project_identifier: Option<String>,
}

fn hidden<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(tolerance::text_or_number(deserializer)?.map(SecretString::from))
}

/// An extension that cannot be read counts as absent: a foreign client may use the same key for something else.
fn readable_ext<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let value = Option::<Value>::deserialize(deserializer)?;
    Ok(value.filter(Value::is_object).and_then(|value| serde_json::from_value(value).ok()))
}

fn known_features<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Feature>, D::Error> {
    let names = Option::<Vec<Value>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(names.into_iter().filter_map(|name| serde_json::from_value(name).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Wrapped;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    #[test]
    fn the_body_of_dlite_is_read_and_its_secret_is_hidden() {
        let body = r#"{"accountId":"acct1","delegateName":"d","delegateRandomToken":"00112233445566778899aabbccddeeff",
            "lastHeartBeat":1733740000000,"delegateType":"DOCKER","ng":true,"pollingModeEnabled":true,"hostName":"dlite-h",
            "sequenceNum":123,"ip":"fake-1.2.3.4","supportedTaskTypes":["A"],"tags":null,"heartbeatAsObject":true,"x":[]}
"#;
        let params: DelegateParams = serde_json::from_str(body).unwrap();
        assert_eq!(params.sequence_num.as_deref(), Some("123"));
        assert_eq!(params.delegate_random_token.as_ref().unwrap().expose_secret().len(), 32);
        assert!(params.tags.is_empty() && params.ext.is_none() && params.delegate_id.is_none());
        let shown = format!("{params:?}{}", serde_json::to_string(&params).unwrap());
        assert!(!shown.contains("0011"), "{shown}");
    }

    #[test]
    fn our_body_survives() {
        let params = DelegateParams {
            account_id: "acct1".into(),
            delegate_name: "zone-a".into(),
            ng: true,
            tags: vec!["linux".into()],
            ext: Some(AgentExt {
                version: 1,
                instance_id: "i".into(),
                task_types: vec!["HTTP_TASK_NG".into()],
                public_key: "AAAA".into(),
                capacity: 256,
                busy: Some(1),
                held: vec![Held { task_id: "t".into(), fence: 3 }],
            }),
            ..Default::default()
        };
        let value = serde_json::to_value(&params).unwrap();
        assert_eq!(value["delegateExt"]["held"][0]["fence"], 3);
        let again: DelegateParams = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(again.ext, params.ext);
        assert_eq!(serde_json::to_value(&again).unwrap(), value);
    }

    #[test]
    fn replies_are_wrapped() {
        let reply = Wrapped::ok(RegisterResponse {
            delegate_id: "q3nD1mZrQ4yJb0Jm2mS1xA".into(),
            ext: Some(ManagerExt { version: 1, features: Feature::ALL.into(), lease_ms: 1, heartbeat_ms: 2 }),
            ..Default::default()
        });
        let text = serde_json::to_string(&reply).unwrap();
        assert!(
            text.starts_with(r#"{"metaData":{},"resource":{"delegateId":"q3nD1mZrQ4yJb0Jm2mS1xA","#),
            "{text}"
        );
        assert!(text.contains(
            r#""features":["longPoll","fence","checkpoint","progress","streamResume","sealedSecrets","busy","logBatch","logWhole","taskBatch"]"#
        ));
        assert_eq!(serde_json::from_str::<Wrapped<RegisterResponse>>(&text).unwrap(), reply);
    }

    #[test]
    fn unknown_words_are_read_mildly() {
        let reply: Wrapped<RegisterResponse> = serde_json::from_str(
            r#"{"resource":{"delegateId":"d","action":null,"delegateExt":{"version":2,"features":["fence","teleport"],"leaseMs":5}}}"#,
        )
        .unwrap();
        let ext = reply.resource.unwrap().ext.unwrap();
        assert!(ext.has(Feature::Fence) && !ext.has(Feature::LongPoll) && ext.features.len() == 1);
        let beat: HeartbeatResponse = serde_json::from_str(
            r#"{"status":"SLEEPING","delegateExt":{"verdicts":[{"taskId":"a","verdict":"lost"},{"taskId":"b","verdict":"ponder"}]}}"#,
        )
        .unwrap();
        assert_eq!(beat.status, DelegateStatus::Unknown);
        let verdicts = beat.ext.unwrap().verdicts;
        assert_eq!((verdicts[0].verdict, verdicts[1].verdict), (Verdict::Lost, Verdict::Keep));
        let foreign: DelegateParams = serde_json::from_str(r#"{"delegateExt":"something else"}"#).unwrap();
        assert!(foreign.ext.is_none());
    }

    proptest! {
        #[test]
        fn any_json_is_answered(value in crate::tests::any_json()) {
            let _unused = serde_json::from_value::<DelegateParams>(value.clone());
            let _unused = serde_json::from_value::<Wrapped<RegisterResponse>>(value.clone());
            let _unused = serde_json::from_value::<Wrapped<HeartbeatResponse>>(value.clone());
            let _unused = serde_json::from_value::<UnregisterRequest>(value.clone());
            for field in ["sequenceNum", "delegateExt", "token", "lastHeartBeat", "tags"] {
                let _unused = serde_json::from_value::<DelegateParams>(serde_json::json!({ field: value.clone() }));
            }
            let reply = serde_json::json!({"delegateExt": value});
            prop_assert!(serde_json::from_value::<RegisterResponse>(reply.clone()).is_ok());
            prop_assert!(serde_json::from_value::<HeartbeatResponse>(reply).is_ok());
        }
    }
}
