use super::*;
use crate::{Client, Settings};
use executor_api::StepContext;
use executor_api::testing::World;
use proto::task::{AwsAccount, AwsCredential, Step, StepTask};
use serde_json::json;

fn context() -> StepContext {
    let step: Step = serde_json::from_value(
        json!({"type": "Noop", "identifier": "s", "name": "s", "spec": {"line": "x"}}),
    )
    .unwrap();
    World::new("t", StepTask::of(step), []).context().1
}

async fn session() -> Session {
    let account = AwsAccount {
        connector: "prod".into(),
        region: "us-east-1".into(),
        credential: AwsCredential::InheritFromDelegate,
        assume_role: None,
        endpoints: std::collections::BTreeMap::new(),
    };
    Client::new(Settings::default()).unwrap().session(&account, &context()).await.unwrap()
}

fn refused(status: u16, code: &str, message: &str) -> Fault {
    Fault::Refused {
        service: Service::Ecs,
        operation: "UpdateService",
        code: code.to_owned(),
        message: message.to_owned(),
        status,
        request_id: Some("r-1".to_owned()),
        retry_after: None,
    }
}

#[tokio::test]
async fn each_fault_has_its_class_and_code() {
    let session = session().await;
    let made = |fault: Fault| {
        let error = fault.step("update service web", &session);
        assert_eq!(error.target.as_deref(), Some("connector prod, region us-east-1"));
        assert!(error.what.starts_with("update service web: "), "{}", error.what);
        (error.code, error.class)
    };
    let remote = Class::RemoteFailed { code: 400 };
    let throttled = Class::Throttled { retry_after: None };
    for (fault, code, class) in [
        (refused(400, "ThrottlingException", "Rate exceeded"), "AWS-009", throttled),
        (refused(429, "", ""), "AWS-009", throttled),
        (refused(400, "ExpiredTokenException", "x"), "AWS-004", Class::Authentication),
        (refused(400, "UnrecognizedClientException", "x"), "AWS-003", Class::Authentication),
        (refused(403, "SignatureDoesNotMatch", "x"), "AWS-003", Class::Authentication),
        (refused(403, "RequestTimeTooSkewed", "x"), "AWS-015", Class::Authentication),
        (refused(400, "AccessDeniedException", "x"), "AWS-006", Class::Authorization),
        (refused(503, "", ""), "AWS-014", Class::Connectivity),
        (refused(400, "ServiceNotActiveException", "x"), "AWS-012", remote),
        (refused(400, "ClusterNotFoundException", "x"), "AWS-012", Class::BadSpec),
        (refused(400, "InvalidParameterException", "x"), "AWS-012", Class::BadSpec),
        (Fault::Tls("x".into()), "AWS-008", Class::Connectivity),
        (Fault::Endpoint("x".into()), "AWS-002", Class::BadSpec),
        (Fault::Strange("x".into()), "AWS-011", Class::Connectivity),
        (Fault::Timeout(Duration::from_secs(3)), "AWS-010", Class::Timeout),
        (CredentialFault::Missing("x".into()).into(), "AWS-001", Class::Authentication),
        (CredentialFault::Invalid("x".into()).into(), "AWS-003", Class::Authentication),
        (CredentialFault::Expired("x".into()).into(), "AWS-004", Class::Authentication),
        (CredentialFault::Denied("x".into()).into(), "AWS-005", Class::Authorization),
        (CredentialFault::Unreachable("x".into()).into(), "AWS-007", Class::Connectivity),
        (Fault::Cancelled(CancelReason::User), "AWS-013", Class::Cancelled { reason: CancelReason::User }),
    ] {
        let shown = format!("{fault:?}");
        assert_eq!(made(fault), (code, class), "{shown}");
    }
    // A quota is no throttling: waiting does not raise it.
    assert!(!refused(400, "LimitExceededException", "").is_throttled());
}

#[tokio::test]
async fn a_denial_names_who_what_and_on_what_and_prints_the_least_statement() {
    let session = session().await;
    session
        .inner
        .shape
        .slot
        .caller
        .set(crate::Caller { account: "1".into(), arn: "arn:aws:sts::1:assumed-role/r/s".into() })
        .unwrap();
    let message = "User: arn:aws:sts::1:assumed-role/r/s is not authorized to perform: iam:PassRole on resource: \
        arn:aws:iam::1:role/task because no identity-based policy allows the iam:PassRole action";
    let error = refused(400, "AccessDeniedException", message).step("register task definition web", &session);
    assert!(
        error
            .what
            .contains("arn:aws:sts::1:assumed-role/r/s may not iam:PassRole on arn:aws:iam::1:role/task"),
        "{}",
        error.what
    );
    assert!(error.hint.unwrap().ends_with(
        "{\"Effect\":\"Allow\",\"Action\":\"iam:PassRole\",\"Resource\":\"arn:aws:iam::1:role/task\"}"
    ));
    // Where AWS says nothing, the call's own action is what is missing.
    let error = refused(400, "AccessDeniedException", "").step("update service web", &session);
    assert!(error.what.ends_with("may not ecs:UpdateService"), "{}", error.what);
    assert!(error.hint.unwrap().contains("\"Action\":\"ecs:UpdateService\",\"Resource\":\"*\""));
}

#[test]
fn what_became_of_a_request_is_known_or_not() {
    let lost = |reached| Fault::Connection { cause: "x".into(), reached, source: None };
    assert!(lost(true).is_unanswered() && !lost(false).is_unanswered());
    assert!(Fault::Timeout(Duration::ZERO).is_unanswered());
    assert!(refused(500, "ServerException", "").is_unanswered());
    assert!(!refused(400, "ThrottlingException", "").is_unanswered());
    assert!(!refused(501, "", "").may_pass() && refused(502, "", "").may_pass());
    assert!(refused(400, "ConcurrentUpdateException", "").may_pass());
}
