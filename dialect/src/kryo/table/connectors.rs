//! Answers of connector checks. Facts §4.5.

use super::*;
use crate::kryo::class::{Class, Declared, FieldInfo};
use crate::kryo::fields::*;
use crate::kryo::writer::Writer;

names! {
    /// How a check ended.
    ConnectivityStatus = 19458 {
        Success "SUCCESS", Failure "FAILURE", Partial "PARTIAL", Unknown "UNKNOWN", Pending "PENDING",
    }
}

names! {
    /// How a check of a Git repository ended.
    GitCommandStatus = 19074 { Success "SUCCESS", Failure "FAILURE", }
}

unwritten! {
    /// The message says what happened.
    ErrorCode = Declared::Enum("ErrorCode");
    /// Only the manager knows what it asked for.
    GitBaseRequest = Declared::Open("GitBaseRequest");
    /// A check has no result of its own.
    GitBaseResult = Declared::Open("GitBaseResult");
}

classes! {
    /// Answer of a check of a cluster.
    open KubernetesConnectionTaskResponse = 19056 {
        connectorValidationResult connector_validation_result: ConnectorValidationResult,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
    }

    /// Answer of a check of an AWS account.
    open AwsValidateTaskResponse = 19361 {
        connectorValidationResult connector_validation_result: ConnectorValidationResult,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
    }

    /// Answer of a check of a Git repository.
    open GitCommandExecutionResponse = 19067 {
        connectorValidationResult connector_validation_result: ConnectorValidationResult,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        errorCode error_code: Never<ErrorCode>,
        errorMessage error_message: Option<String>,
        gitCommandRequest git_command_request: Never<GitBaseRequest>,
        gitCommandResult git_command_result: Never<GitBaseResult>,
        gitCommandStatus git_command_status: GitCommandStatus,
    }

    /// How a check ended and why.
    open ConnectorValidationResult = 19059 {
        delegateId delegate_id: Option<String>,
        errorSummary error_summary: Option<String>,
        errors errors: Vec<ErrorDetail>,
        status status: ConnectivityStatus,
        taskId task_id: Option<String>,
        testedAt tested_at: i64,
    }

    /// One reason.
    open ErrorDetail = 54325 {
        code code: i32,
        message message: Option<String>,
        reason reason: Option<String>,
    }
}
