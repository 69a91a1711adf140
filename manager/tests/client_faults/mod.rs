//! A store that dies: from the n-th transition on every call fails, as in a process that was killed there.

use async_trait::async_trait;
use manager::store::{
    Acquire, Agent, Answered, Applied, Claim, Credential, DueTimer, Effect, Entity, ExecutionRow, Millis,
    NewTask, NextState, Snapshot, Store, StoreError, TaskRow, TriggerEvent,
};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Where in the transition the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// The commit never happened.
    Before,
    /// It happened, and nobody heard of it.
    After,
}

pub(crate) struct MortalStore {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) dead: AtomicBool,
    left: AtomicU32,
    death: Death,
}

fn died<T>() -> Result<T, StoreError> {
    Err(StoreError::Backend("the process is dead".to_owned()))
}

impl MortalStore {
    /// Dies in the `n`-th transition, counted from 1.
    pub(crate) fn new(inner: Arc<dyn Store>, n: u32, death: Death) -> Self {
        MortalStore { inner, dead: AtomicBool::new(false), left: AtomicU32::new(n), death }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Store for MortalStore {
    async fn apply_entity(&self, entity: Entity) -> Result<Applied, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.apply_entity(entity).await
    }
    async fn entity(&self, kind: &str, scope: &str, id: &str) -> Result<Option<Entity>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.entity(kind, scope, id).await
    }
    async fn entities(&self, kind: &str) -> Result<Vec<Entity>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.entities(kind).await
    }
    async fn delete_entity(&self, kind: &str, scope: &str, id: &str) -> Result<(), StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.delete_entity(kind, scope, id).await
    }
    async fn put_secret(&self, id: &str, sealed: Vec<u8>, now: Millis) -> Result<Applied, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.put_secret(id, sealed, now).await
    }
    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.secret(id).await
    }
    async fn secrets(&self) -> Result<Vec<(String, Millis)>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.secrets().await
    }
    async fn delete_secret(&self, id: &str) -> Result<(), StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.delete_secret(id).await
    }
    async fn add_credential(&self, credential: Credential) -> Result<(), StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.add_credential(credential).await
    }
    async fn credentials(&self, kind: &str) -> Result<Vec<Credential>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.credentials(kind).await
    }
    async fn credential_by_hash(&self, kind: &str, hash: &str) -> Result<Option<Credential>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.credential_by_hash(kind, hash).await
    }
    async fn revoke_credential(&self, kind: &str, name: &str, now: Millis) -> Result<(), StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.revoke_credential(kind, name, now).await
    }
    async fn learn_host_key(&self, host: &str, key: &str, now: Millis) -> Result<Applied, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.learn_host_key(host, key, now).await
    }
    async fn accept_host_key(&self, host: &str, key: &str, now: Millis) -> Result<(), StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.accept_host_key(host, key, now).await
    }
    async fn host_keys(&self, host: Option<&str>) -> Result<Vec<(String, String, Millis)>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.host_keys(host).await
    }
    async fn forget_host_key(&self, host: &str) -> Result<(), StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.forget_host_key(host).await
    }
    async fn put_agent(&self, agent: Agent) -> Result<(), StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.put_agent(agent).await
    }
    async fn find_agent(
        &self,
        instance_id: &str,
        host_name: &str,
        ip: &str,
    ) -> Result<Option<Agent>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.find_agent(instance_id, host_name, ip).await
    }
    async fn agent(&self, id: &str) -> Result<Option<Agent>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.agent(id).await
    }
    async fn agents(&self) -> Result<Vec<Agent>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.agents().await
    }
    async fn enqueue(&self, task: NewTask) -> Result<(), StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.enqueue(task).await
    }
    async fn queued_tasks(&self, limit: u32) -> Result<Vec<TaskRow>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.queued_tasks(limit).await
    }
    async fn tasks_of_agent(&self, agent_id: &str) -> Result<Vec<TaskRow>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.tasks_of_agent(agent_id).await
    }
    async fn tasks_of_execution(&self, execution_id: &str) -> Result<Vec<TaskRow>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.tasks_of_execution(execution_id).await
    }
    async fn task_ends(&self, ids: Vec<String>) -> Result<Vec<TaskRow>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.task_ends(ids).await
    }
    async fn task(&self, id: &str) -> Result<Option<TaskRow>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.task(id).await
    }
    async fn acquire(
        &self,
        id: &str,
        agent_id: &str,
        instance_id: &str,
        now: Millis,
    ) -> Result<Acquire, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.acquire(id, agent_id, instance_id, now).await
    }
    async fn answer(
        &self,
        id: &str,
        agent_id: &str,
        fence: u64,
        result: Value,
        now: Millis,
    ) -> Result<Answered, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.answer(id, agent_id, fence, result, now).await
    }
    async fn progress(&self, id: &str, agent_id: &str, progress: Value) -> Result<(), StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.progress(id, agent_id, progress).await
    }
    async fn checkpoint(
        &self,
        id: &str,
        agent_id: &str,
        fence: u64,
        checkpoint: Value,
    ) -> Result<(), StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.checkpoint(id, agent_id, fence, checkpoint).await
    }
    async fn checkpoints(&self, id: &str) -> Result<Vec<Value>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.checkpoints(id).await
    }
    async fn end_queued(&self, id: &str, result: Value, now: Millis) -> Result<bool, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.end_queued(id, result, now).await
    }
    async fn open_tasks(&self) -> Result<Vec<(i64, TaskRow)>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.open_tasks().await
    }
    async fn news(&self, limit: u32) -> Result<Vec<TaskRow>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.news(limit).await
    }
    async fn create_execution(
        &self,
        id: &str,
        pipeline: &str,
        rehearsal: Option<u32>,
        started_by: &str,
        now: Millis,
        build: Box<dyn FnOnce(u64) -> Result<Value, String> + Send>,
    ) -> Result<ExecutionRow, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.create_execution(id, pipeline, rehearsal, started_by, now, build).await
    }
    async fn snapshot(&self, execution_id: &str) -> Result<Option<Snapshot>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.snapshot(execution_id).await
    }
    async fn transition(
        &self,
        execution_id: &str,
        expected_version: u64,
        event: Value,
        state: NextState,
        effects: Vec<Effect>,
        now: Millis,
    ) -> Result<(), StoreError> {
        if self.is_dead() {
            return died();
        }
        let dies = self.left.fetch_sub(1, Ordering::SeqCst) == 1;
        if dies {
            self.dead.store(true, Ordering::SeqCst);
            if self.death == Death::After {
                self.inner.transition(execution_id, expected_version, event, state, effects, now).await?;
            }
            return died();
        }
        self.inner.transition(execution_id, expected_version, event, state, effects, now).await
    }
    async fn events(&self, execution_id: &str) -> Result<Vec<Value>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.events(execution_id).await
    }
    async fn execution(&self, id: &str) -> Result<Option<ExecutionRow>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.execution(id).await
    }
    async fn executions(&self, pipeline: Option<&str>, limit: u32) -> Result<Vec<ExecutionRow>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.executions(pipeline, limit).await
    }
    async fn open_executions(&self) -> Result<Vec<String>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.open_executions().await
    }
    async fn claims(&self, key: &str) -> Result<Vec<Claim>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.claims(key).await
    }
    async fn due_timers(&self, now: Millis) -> Result<Vec<DueTimer>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.due_timers(now).await
    }
    async fn next_timer(&self) -> Result<Option<Millis>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.next_timer().await
    }
    async fn add_trigger_event(&self, event: TriggerEvent) -> Result<bool, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.add_trigger_event(event).await
    }
    async fn finish_trigger_event(&self, event: TriggerEvent) -> Result<(), StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.finish_trigger_event(event).await
    }
    async fn trigger_event(&self, id: &str) -> Result<Option<TriggerEvent>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.trigger_event(id).await
    }
    async fn trigger_events(&self, of: (&str, &str), limit: u32) -> Result<Vec<TriggerEvent>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.trigger_events(of, limit).await
    }
    async fn open_trigger_events(&self, limit: u32) -> Result<Vec<TriggerEvent>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.open_trigger_events(limit).await
    }
    async fn get_fact(&self, name: &str) -> Result<Option<String>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.get_fact(name).await
    }
    async fn put_fact(&self, name: &str, value: &str) -> Result<(), StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.put_fact(name, value).await
    }
    async fn facts(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.facts(prefix).await
    }
    async fn drop_fact(&self, name: &str) -> Result<(), StoreError> {
        if self.is_dead() {
            return died();
        }
        self.inner.drop_fact(name).await
    }
}
