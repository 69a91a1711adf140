//! What a run knows of the event that started it.

use expr::{Context, Lookup, Scope, Segment, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

/// What started a run, beside a person. Kept in the plan, so that later steps see the same event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TriggerFacts {
    /// `<+pipeline.triggerType>`: `WEBHOOK_CUSTOM` or `SCHEDULER_CRON`.
    pub run_type: String,
    /// Identifier of the trigger.
    pub identifier: String,
    /// Id of the event.
    pub event: String,
    /// The root `trigger`: `type`, `payload`, `header`. All of it came from outside and is never resolved again.
    pub document: Json,
}

impl TriggerFacts {
    /// Of a webhook call. Names of headers count in lower case.
    pub fn webhook(
        identifier: &str,
        event: &str,
        payload: Json,
        headers: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let header: Map<String, Json> = headers
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), Json::String(value)))
            .collect();
        TriggerFacts {
            run_type: "WEBHOOK_CUSTOM".to_owned(),
            identifier: identifier.to_owned(),
            event: event.to_owned(),
            document: json!({ "type": "Custom", "payload": payload, "header": header }),
        }
    }

    /// Of a tick of the clock, epoch milliseconds.
    pub fn tick(identifier: &str, event: &str, at: u64) -> Self {
        TriggerFacts {
            run_type: "SCHEDULER_CRON".to_owned(),
            identifier: identifier.to_owned(),
            event: event.to_owned(),
            document: json!({ "type": "Scheduled", "scheduledAt": at }),
        }
    }

    /// `trigger.…`: every string is tainted (DESIGN D12). A bare `<+trigger>` is the whole document.
    pub(crate) fn lookup(&self, path: &[Segment]) -> Lookup {
        let mut value = &self.document;
        let in_header = path.get(1).and_then(Segment::name) == Some("header");
        for (at, segment) in path.iter().enumerate().skip(1) {
            let next = match (value, segment) {
                (Json::Object(map), Segment::Name(name)) if in_header && at == 2 => {
                    map.get(name.to_ascii_lowercase().as_str())
                }
                (Json::Object(map), Segment::Name(name)) => map.get(name.as_ref()),
                (Json::Object(map), Segment::Index(index)) => map.get(index.to_string().as_str()),
                // Methods and positions are the evaluator's.
                _ => return Lookup::Found { value: Value::from_json(value, true), used: at },
            };
            match next {
                Some(next) => value = next,
                None => return Lookup::Missing,
            }
        }
        Lookup::Found { value: Value::from_json(value, true), used: path.len() }
    }

    /// The value at `payload.KEY` as text; dots separate levels (rule R21). `None`: not there, or null.
    pub(crate) fn payload_text(&self, key: &str) -> Option<String> {
        let payload = self.document.get("payload")?;
        // A key that holds a dot itself is found before its parts are.
        let direct = payload.get(key);
        let value = direct.or_else(|| {
            key.split('.').try_fold(payload, |value, part| match value {
                Json::Array(list) => list.get(part.parse::<usize>().ok()?),
                other => other.get(part),
            })
        });
        as_text(value?)
    }

    /// A header as text.
    pub(crate) fn header_text(&self, name: &str) -> Option<String> {
        as_text(self.document.get("header")?.get(name.to_ascii_lowercase())?)
    }

    /// A context over nothing but the event, for conditions and inputs. No secret can be named in it.
    pub(crate) fn context<'a>(&self, scope: &'a EventScope<'a>, now_ms: i64) -> Context<'a> {
        Context { scope, now_ms, secret_token: 0 }
    }
}

fn as_text(value: &Json) -> Option<String> {
    match value {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// `trigger` and `eventPayload`, nothing else.
pub(crate) struct EventScope<'a>(pub(crate) &'a TriggerFacts);

impl Scope for EventScope<'_> {
    fn lookup(&self, path: &[Segment]) -> Lookup {
        match path.first().and_then(Segment::name) {
            Some("trigger") => self.0.lookup(path),
            Some("eventPayload") => {
                let mut rewritten = vec![Segment::from("trigger"), Segment::from("payload")];
                rewritten.extend(path.iter().skip(1).cloned());
                match self.0.lookup(&rewritten) {
                    Lookup::Found { value, used } => Lookup::Found { value, used: used.saturating_sub(1) },
                    other => other,
                }
            }
            _ => Lookup::Undefined,
        }
    }
}
