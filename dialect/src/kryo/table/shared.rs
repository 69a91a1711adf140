//! The envelope, what all answers share, and the answers of Http, Shell and Command. Facts §4.1, §4.2.

use super::*;
use crate::kryo::class::{Class, Declared, FieldInfo};
use crate::kryo::fields::*;
use crate::kryo::writer::Writer;

names! {
    /// How the agent fared with the task.
    ResponseCode = 5520 { Ok "OK", Failed "FAILED", RetryOnOtherDelegate "RETRY_ON_OTHER_DELEGATE", }
}

names! {
    /// How the rest of the response is written.
    SerializationFormat = 55402 { Kryo "KRYO", Json "JSON", }
}

names! {
    /// How a step or a unit ended.
    CommandExecutionStatus = 5037 {
        Success "SUCCESS", Failure "FAILURE", Running "RUNNING", Queued "QUEUED", Skipped "SKIPPED",
    }
}

names! {
    /// What failure strategies go by.
    FailureType = 1205 {
        Expired "EXPIRED",
        DelegateProvisioning "DELEGATE_PROVISIONING",
        Connectivity "CONNECTIVITY",
        Authentication "AUTHENTICATION",
        VerificationFailure "VERIFICATION_FAILURE",
        ApplicationError "APPLICATION_ERROR",
        AuthorizationError "AUTHORIZATION_ERROR",
        TimeoutError "TIMEOUT_ERROR",
        PolicyEvaluationFailure "POLICY_EVALUATION_FAILURE",
        InputTimeoutFailure "INPUT_TIMEOUT_FAILURE",
        ApprovalRejection "APPROVAL_REJECTION",
        DelegateRestart "DELEGATE_RESTART",
        UserMarkedFailure "USER_MARKED_FAILURE",
    }
}

unwritten! {
    /// The manager goes by `taskTypeName`.
    TaskType = Declared::Enum("TaskType");
    /// Hundreds of classes; the message and the failure types say what matters.
    WingsException = Declared::Open("WingsException");
}

interface! {
    /// What a response carries.
    Response = "DelegateResponseData" {
        Http(HttpStepResponse),
        Shell(ShellScriptTaskResponseNG),
        Command(CommandTaskResponse),
        Kubernetes(K8sDeployResponse),
        EcsRollingDeploy(EcsRollingDeployResponse),
        EcsRollingRollback(EcsRollingRollbackResponse),
        EcsPrepareRollbackData(EcsPrepareRollbackDataResponse),
        EcsCanaryDeploy(EcsCanaryDeployResponse),
        EcsCanaryDelete(EcsCanaryDeleteResponse),
        EcsBlueGreenPrepareRollbackData(EcsBlueGreenPrepareRollbackDataResponse),
        EcsBlueGreenCreateService(EcsBlueGreenCreateServiceResponse),
        EcsBlueGreenSwapTargetGroups(EcsBlueGreenSwapTargetGroupsResponse),
        EcsBlueGreenRollback(EcsBlueGreenRollbackResponse),
        EcsRunTask(EcsRunTaskResponse),
        EcsBasicPrepareRollback(EcsBasicPrepareRollbackResponse),
        EcsServiceSetup(EcsServiceSetupResponse),
        EcsUpgradeContainer(EcsUpgradeContainerResponse),
        EcsBasicRollback(EcsBasicRollbackResponse),
        KubernetesConnection(KubernetesConnectionTaskResponse),
        AwsValidate(AwsValidateTaskResponse),
        Git(GitCommandExecutionResponse),
        Error(ErrorNotifyResponseData),
    }
}

interface! {
    /// What a script left behind.
    CommandExecutionData = "CommandExecutionData" { Shell(ShellExecutionData), }
}

/// The interfaces of this part.
pub(super) const INTERFACES: &[Interface] = &[Response::INTERFACE, CommandExecutionData::INTERFACE];

classes! {
    /// The envelope of every answer. `accountId` is what the manager looks the task up by.
    open DelegateTaskResponse = 5006 {
        accountId account_id: String,
        response response: Response,
        responseCode response_code: ResponseCode,
        serializationFormat serialization_format: SerializationFormat,
        taskType task_type: Never<TaskType>,
        taskTypeName task_type_name: String,
    }

    /// Who answers.
    open DelegateMetaInfo = 5372 {
        hostName host_name: String,
        id id: String,
    }

    /// A failure that no response of the family can tell: the infrastructure between agent and target.
    open ErrorNotifyResponseData = 5213 {
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        errorMessage error_message: String,
        exception exception: Never<WingsException>,
        expired expired: bool,
        failureTypes failure_types: EnumSet<FailureType>,
    }

    /// The units of a step and where they stand; also the root of a progress update.
    final UnitProgressData = 95001 {
        unitProgresses unit_progresses: Vec<UnitProgress>,
    }

    /// Answer of HTTP_TASK_NG.
    open HttpStepResponse = 19439 {
        commandExecutionStatus command_execution_status: CommandExecutionStatus,
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        errorMessage error_message: Option<String>,
        header header: Option<String>,
        httpMethod http_method: Option<String>,
        httpResponseBody http_response_body: Option<String>,
        httpResponseBodyInBytes http_response_body_in_bytes: Option<Bytes>,
        httpResponseCode http_response_code: i32,
        httpUrl http_url: Option<String>,
    }

    /// Variables that a script left behind; secret ones too, in clear.
    open ShellExecutionData = 5528 {
        expired expired: bool,
        sweepingOutputEnvVariables sweeping_output_env_variables: Texts,
    }

    /// The part of Shell and Command answers that is used without a look at a success.
    final ExecuteCommandResponse = 1438 {
        commandExecutionData command_execution_data: CommandExecutionData,
        status status: CommandExecutionStatus,
    }

    /// Answer of SHELL_SCRIPT_TASK_NG.
    final ShellScriptTaskResponseNG = 19464 {
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        errorMessage error_message: Option<String>,
        executeCommandResponse execute_command_response: ExecuteCommandResponse,
        status status: CommandExecutionStatus,
        unitProgressData unit_progress_data: UnitProgressData,
    }

    /// Answer of COMMAND_TASK_NG.
    final CommandTaskResponse = 55304 {
        delegateMetaInfo delegate_meta_info: DelegateMetaInfo,
        errorMessage error_message: Option<String>,
        executeCommandResponse execute_command_response: ExecuteCommandResponse,
        host host: Option<String>,
        status status: CommandExecutionStatus,
        unitProgressData unit_progress_data: UnitProgressData,
    }
}

/// Where a unit stands, by its number in Harness' Protocol Buffers enum, which has another order than
/// [`CommandExecutionStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "The names are Harness' own.")]
pub enum UnitStatus {
    Success = 1,
    Failure = 2,
    Running = 3,
    Queued = 4,
    Skipped = 5,
}

/// One unit: a Protocol Buffers message inside Kryo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitProgress {
    /// Field 1.
    pub unit_name: String,
    /// Field 2.
    pub status: UnitStatus,
    /// Field 3, epoch milliseconds; 0 is left out.
    pub start_time: u64,
    /// Field 4, epoch milliseconds; 0 is left out.
    pub end_time: u64,
}

impl UnitProgress {
    /// Registration id.
    pub const ID: u32 = 9701;

    /// The message.
    pub fn message(&self) -> Vec<u8> {
        fn number(out: &mut Vec<u8>, mut value: u64) {
            while value > 0x7f {
                out.push(value as u8 | 0x80);
                value >>= 7;
            }
            out.push(value as u8);
        }
        let mut out = Vec::with_capacity(self.unit_name.len() + 20);
        if !self.unit_name.is_empty() {
            out.push(0x0a);
            number(&mut out, self.unit_name.len() as u64);
            out.extend_from_slice(self.unit_name.as_bytes());
        }
        out.extend_from_slice(&[0x10, self.status as u8]);
        for (tag, time) in [(0x18, self.start_time), (0x20, self.end_time)] {
            if time != 0 {
                out.push(tag);
                number(&mut out, time);
            }
        }
        out
    }
}

impl Element for UnitProgress {
    fn put_element(&self, writer: &mut Writer) {
        let message = self.message();
        writer.class(UnitProgress::ID);
        writer.size(message.len() + 1);
        writer.bytes(&message);
        writer.flush();
    }
}
