package kryocheck;

import java.time.Instant;
import java.util.*;

/** Our own empty data holders. Only simple names, field names, field types and finality matter on the wire. */
public final class Stubs {
  // ---- envelope -------------------------------------------------------------------------------------------------
  interface DelegateResponseData {}
  enum ResponseCode { OK, FAILED, RETRY_ON_OTHER_DELEGATE }
  enum SerializationFormat { KRYO, JSON }
  enum TaskType { HTTP_TASK_NG, SHELL_SCRIPT_TASK_NG, COMMAND_TASK_NG, K8S_COMMAND_TASK_NG, ECS_COMMAND_TASK_NG } // names only
  enum CommandExecutionStatus { SUCCESS, FAILURE, RUNNING, QUEUED, SKIPPED }
  enum FailureType { EXPIRED, DELEGATE_PROVISIONING, CONNECTIVITY, AUTHENTICATION, VERIFICATION_FAILURE, APPLICATION_ERROR,
    AUTHORIZATION_ERROR, TIMEOUT_ERROR, POLICY_EVALUATION_FAILURE, INPUT_TIMEOUT_FAILURE, APPROVAL_REJECTION, DELEGATE_RESTART,
    USER_MARKED_FAILURE }
  static class WingsException {} // never sent by us; only its finality matters
  static class DelegateTaskResponse { String accountId; DelegateResponseData response; ResponseCode responseCode;
    SerializationFormat serializationFormat; TaskType taskType; String taskTypeName; }
  static class DelegateMetaInfo { String hostName; String id; }
  static class ErrorNotifyResponseData implements DelegateResponseData { DelegateMetaInfo delegateMetaInfo; String errorMessage;
    WingsException exception; boolean expired; EnumSet<FailureType> failureTypes; }

  // ---- unit progress --------------------------------------------------------------------------------------------
  /** Stands for a protobuf message: the wire form is varint(len+1) + message bytes. */
  static final class UnitProgress { byte[] message; }
  static final class UnitProgressData implements DelegateResponseData { List<UnitProgress> unitProgresses; }
  static final class CommandUnitProgress { long endTime; long startTime; CommandExecutionStatus status; }
  static final class CommandUnitsProgress { LinkedHashMap<String, CommandUnitProgress> commandUnitProgressMap; }

  // ---- http, shell, command -------------------------------------------------------------------------------------
  static class HttpStepResponse implements DelegateResponseData { CommandExecutionStatus commandExecutionStatus;
    DelegateMetaInfo delegateMetaInfo; String errorMessage; String header; String httpMethod; String httpResponseBody;
    byte[] httpResponseBodyInBytes; int httpResponseCode; String httpUrl; }
  interface CommandExecutionData {}
  static class ShellExecutionData implements CommandExecutionData { boolean expired; Map<String, String> sweepingOutputEnvVariables; }
  static final class ExecuteCommandResponse { CommandExecutionData commandExecutionData; CommandExecutionStatus status; }
  static final class ShellScriptTaskResponseNG implements DelegateResponseData { DelegateMetaInfo delegateMetaInfo; String errorMessage;
    ExecuteCommandResponse executeCommandResponse; CommandExecutionStatus status; UnitProgressData unitProgressData; }
  static final class CommandTaskResponse implements DelegateResponseData { DelegateMetaInfo delegateMetaInfo; String errorMessage;
    ExecuteCommandResponse executeCommandResponse; String host; CommandExecutionStatus status; UnitProgressData unitProgressData; }

  // ---- kubernetes -----------------------------------------------------------------------------------------------
  interface K8sNGTaskResponse {}
  static class K8sContainer { String containerId; String image; String name; }
  static class K8sPod { List<K8sContainer> containerList; Map<String, String> labels; String name; String namespace; boolean newPod;
    String podIP; String releaseName; String uid; }
  static class HelmChartInfo { String name; String repoUrl; String subChartPath; String version; }
  static class KubernetesResourceId { String kind; String name; String namespace; boolean versioned; }
  static final class K8sDeployResponse implements DelegateResponseData { CommandExecutionStatus commandExecutionStatus;
    UnitProgressData commandUnitsProgress; DelegateMetaInfo delegateMetaInfo; String errorMessage; K8sNGTaskResponse k8sNGTaskResponse; }
  static class K8sRollingDeployResponse implements K8sNGTaskResponse { HelmChartInfo helmChartInfo; List<K8sPod> k8sPodList;
    String loadBalancer; List<K8sPod> previousK8sPodList; List<KubernetesResourceId> prunedResourceIds; Integer releaseNumber; }
  static final class K8sRollingDeployRollbackResponse implements K8sNGTaskResponse { HelmChartInfo helmChartInfo; List<K8sPod> k8sPodList;
    List<K8sPod> previousK8sPodList; Set<KubernetesResourceId> recreatedResourceIds; }
  static final class K8sCanaryDeployResponse implements K8sNGTaskResponse { String canaryWorkload; boolean canaryWorkloadDeployed;
    Integer currentInstances; HelmChartInfo helmChartInfo; List<K8sPod> k8sPodList; List<K8sPod> previousK8sPodList; Integer releaseNumber; }
  static class K8sBGDeployResponse implements K8sNGTaskResponse { HelmChartInfo helmChartInfo; List<K8sPod> k8sPodList;
    List<K8sPod> previousK8sPodList; String primaryColor; String primaryServiceName; List<KubernetesResourceId> prunedResourceIds;
    Integer releaseNumber; String stageColor; Boolean stageDeploymentSkipped; String stageServiceName; }
  static final class K8sScaleResponse implements K8sNGTaskResponse { List<K8sPod> k8sPodList; List<K8sPod> previousK8sPodList; }
  static final class K8sDryRunManifestResponse implements K8sNGTaskResponse { String manifestDryRunYaml; }
  static class K8sTrafficRoutingResponse implements K8sNGTaskResponse {}

  // ---- ecs ------------------------------------------------------------------------------------------------------
  static class EcsContainer { String containerArn; String image; String name; String runtimeId; }
  static class EcsTask { String clusterArn; List<EcsContainer> containers; String launchType; String serviceName; Long startedAt;
    String startedBy; String taskArn; String taskDefinitionArn; Long version; }
  static class EcsRollingDeployResult { List<EcsTask> ecsTasks; String region; String serviceName; }
  static class EcsRollingRollbackResult { List<EcsTask> ecsTasks; boolean firstDeployment; String infrastructureKey; String region; }
  static class EcsPrepareRollbackDataResult { String createServiceRequestBuilderString; boolean isFirstDeployment;
    List<String> registerScalableTargetRequestBuilderStrings; List<String> registerScalingPolicyRequestBuilderStrings; String serviceName; }
  static class EcsCanaryDeployResult { String canaryServiceName; List<EcsTask> ecsTasks; String region; }
  static class EcsCanaryDeleteResult { boolean canaryDeleted; String canaryServiceName; }
  static class EcsBlueGreenCreateServiceResult { List<EcsTask> ecsTasks; boolean isNewServiceCreated; String listenerArn;
    String listenerRuleArn; String loadBalancer; String region; String serviceName; String targetGroupArn; }
  static final class EcsLoadBalancerConfig { String loadBalancer; String prodListenerArn; String prodListenerRuleArn;
    String prodTargetGroupArn; String stageListenerArn; String stageListenerRuleArn; String stageTargetGroupArn; }
  static class EcsBlueGreenPrepareRollbackDataResult { String createServiceRequestBuilderString; EcsLoadBalancerConfig ecsLoadBalancerConfig;
    boolean greenServiceExist; String greenServiceName; String greenServiceRequestBuilderString; boolean greenServiceRollbackDataExist;
    List<String> greenServiceScalableTargetRequestBuilderStrings; List<String> greenServiceScalingPolicyRequestBuilderStrings;
    boolean isFirstDeployment; List<String> registerScalableTargetRequestBuilderStrings;
    List<String> registerScalingPolicyRequestBuilderStrings; String serviceName; }
  static class EcsBlueGreenSwapTargetGroupsResult { List<EcsTask> ecsTasks; String infrastructureKey; String loadBalancer;
    String prodListenerArn; String prodListenerRuleArn; String prodTargetGroupArn; String region; String stageListenerArn;
    String stageListenerRuleArn; String stageTargetGroupArn; boolean trafficShifted; }
  static class EcsBlueGreenRollbackResult { List<EcsTask> ecsTasks; String infrastructureKey; boolean isFirstDeployment;
    String loadBalancer; String prodListenerArn; String prodListenerRuleArn; String prodTargetGroupArn; String region;
    String stageListenerArn; String stageListenerRuleArn; String stageTargetGroupArn; }
  static class EcsRunTaskResult { List<EcsTask> ecsTasks; String region; }
  static final class EcsRollingDeployResponse implements DelegateResponseData { CommandExecutionStatus commandExecutionStatus;
    DelegateMetaInfo delegateMetaInfo; EcsRollingDeployResult ecsRollingDeployResult; String errorMessage; UnitProgressData unitProgressData; }
  static final class EcsRollingRollbackResponse implements DelegateResponseData { CommandExecutionStatus commandExecutionStatus;
    DelegateMetaInfo delegateMetaInfo; EcsRollingRollbackResult ecsRollingRollbackResult; String errorMessage; UnitProgressData unitProgressData; }
  static final class EcsPrepareRollbackDataResponse implements DelegateResponseData { CommandExecutionStatus commandExecutionStatus;
    DelegateMetaInfo delegateMetaInfo; EcsPrepareRollbackDataResult ecsPrepareRollbackDataResult; String errorMessage;
    UnitProgressData unitProgressData; }
  static final class EcsCanaryDeployResponse implements DelegateResponseData { CommandExecutionStatus commandExecutionStatus;
    DelegateMetaInfo delegateMetaInfo; EcsCanaryDeployResult ecsCanaryDeployResult; String errorMessage; UnitProgressData unitProgressData; }
  static final class EcsCanaryDeleteResponse implements DelegateResponseData { CommandExecutionStatus commandExecutionStatus;
    DelegateMetaInfo delegateMetaInfo; EcsCanaryDeleteResult ecsCanaryDeleteResult; String errorMessage; UnitProgressData unitProgressData; }
  static final class EcsBlueGreenCreateServiceResponse implements DelegateResponseData { CommandExecutionStatus commandExecutionStatus;
    DelegateMetaInfo delegateMetaInfo; EcsBlueGreenCreateServiceResult ecsBlueGreenCreateServiceResult; String errorMessage;
    UnitProgressData unitProgressData; }
  static final class EcsBlueGreenPrepareRollbackDataResponse implements DelegateResponseData { CommandExecutionStatus commandExecutionStatus;
    DelegateMetaInfo delegateMetaInfo; EcsBlueGreenPrepareRollbackDataResult ecsBlueGreenPrepareRollbackDataResult; String errorMessage;
    UnitProgressData unitProgressData; }
  static final class EcsBlueGreenSwapTargetGroupsResponse implements DelegateResponseData { CommandExecutionStatus commandExecutionStatus;
    DelegateMetaInfo delegateMetaInfo; EcsBlueGreenSwapTargetGroupsResult ecsBlueGreenSwapTargetGroupsResult; String errorMessage;
    UnitProgressData unitProgressData; }
  static final class EcsBlueGreenRollbackResponse implements DelegateResponseData { CommandExecutionStatus commandExecutionStatus;
    DelegateMetaInfo delegateMetaInfo; EcsBlueGreenRollbackResult ecsBlueGreenRollbackResult; String errorMessage;
    UnitProgressData unitProgressData; }
  static final class EcsRunTaskResponse implements DelegateResponseData { CommandExecutionStatus commandExecutionStatus;
    DelegateMetaInfo delegateMetaInfo; EcsRunTaskResult ecsRunTaskResult; String errorMessage; UnitProgressData unitProgressData; }

  static class EcsServiceData { String region; String serviceName; List<EcsTask> tasks; }
  static class EcsBasicPrepareRollbackData { String createServiceRequestYaml; Integer currentServiceInstanceCount; String currentServiceName;
    boolean isFirstDeployment; Integer newServiceThresholdInstanceCount; int nextRevision; List<String> registerScalableTargetRequestYaml;
    List<String> registerScalingPolicyRequestYaml; String servicePrefix; }
  static class EcsBasicDeployData { String infrastructureKey; EcsServiceData newServiceData; EcsServiceData oldServiceData; }
  static class EcsBasicRollbackData { String infrastructureKey; boolean isFirstDeployment; EcsServiceData newServiceData;
    EcsServiceData oldServiceData; }
  static final class EcsBasicPrepareRollbackResponse implements DelegateResponseData { CommandExecutionStatus commandExecutionStatus;
    DelegateMetaInfo delegateMetaInfo; EcsBasicPrepareRollbackData prepareRollbackData; String errorMessage; UnitProgressData unitProgressData; }
  static final class EcsServiceSetupResponse implements DelegateResponseData { CommandExecutionStatus commandExecutionStatus;
    DelegateMetaInfo delegateMetaInfo; EcsBasicDeployData deployData; String errorMessage; UnitProgressData unitProgressData; }
  static final class EcsUpgradeContainerResponse implements DelegateResponseData { CommandExecutionStatus commandExecutionStatus;
    DelegateMetaInfo delegateMetaInfo; EcsBasicDeployData deployData; String errorMessage; UnitProgressData unitProgressData; }
  static final class EcsBasicRollbackResponse implements DelegateResponseData { CommandExecutionStatus commandExecutionStatus;
    DelegateMetaInfo delegateMetaInfo; EcsBasicRollbackData rollbackData; String errorMessage; UnitProgressData unitProgressData; }

  // ---- connector validation -------------------------------------------------------------------------------------
  enum ConnectivityStatus { SUCCESS, FAILURE, PARTIAL, UNKNOWN, PENDING }
  static class ErrorDetail { int code; String message; String reason; }
  static class ConnectorValidationResult { String delegateId; String errorSummary; List<ErrorDetail> errors; ConnectivityStatus status;
    String taskId; long testedAt; }
  static class KubernetesConnectionTaskResponse implements DelegateResponseData { ConnectorValidationResult connectorValidationResult;
    DelegateMetaInfo delegateMetaInfo; }
  static class AwsValidateTaskResponse implements DelegateResponseData { ConnectorValidationResult connectorValidationResult;
    DelegateMetaInfo delegateMetaInfo; }
  enum ErrorCode { UNKNOWN_ERROR } // never sent by us
  enum GitCommandStatus { SUCCESS, FAILURE }
  interface GitBaseRequest {}
  interface GitBaseResult {}
  static class GitCommandExecutionResponse implements DelegateResponseData { ConnectorValidationResult connectorValidationResult;
    DelegateMetaInfo delegateMetaInfo; ErrorCode errorCode; String errorMessage; GitBaseRequest gitCommandRequest;
    GitBaseResult gitCommandResult; GitCommandStatus gitCommandStatus; }

  // ---- probes for wire rules (invented classes, invented ids) ----------------------------------------------------
  enum PlainMode { FAST, SLOW }
  enum BodyMode { A { int f() { return 1; } }, B { int f() { return 2; } }; abstract int f(); } // not final
  static class ZBase { String name; int n; private String dup; }
  static class AMiddle extends ZBase { long m; String dup; }
  static final class Leaf extends AMiddle { boolean last; transient String skipped; static String alsoSkipped; }
  static final class Scalars { byte b; short s; int i; long l; float f; double d; char c; boolean z; Integer bi; Long bl; Boolean bz;
    String str; byte[] bytes; char[] chars; String[] strs; PlainMode mode; BodyMode body; }
  static final class Containers { Object any; List<String> list; Collection<Object> coll; Map<String, Object> map; Set<String> set;
    Optional<String> opt; Instant instant; Date date; Leaf finalObj; ZBase openObj; }

  static final Map<Class<?>, Integer> IDS = new LinkedHashMap<>();
  private static void id(Class<?> c, int id) { IDS.put(c, id); }
  static {
    id(DelegateTaskResponse.class, 5006); id(ResponseCode.class, 5520); id(SerializationFormat.class, 55402); id(TaskType.class, 5005);
    id(CommandExecutionStatus.class, 5037); id(FailureType.class, 1205); id(WingsException.class, 5174); id(DelegateMetaInfo.class, 5372);
    id(ErrorNotifyResponseData.class, 5213); id(UnitProgress.class, 9701); id(UnitProgressData.class, 95001);
    id(CommandUnitProgress.class, 543428); id(CommandUnitsProgress.class, 543427); id(HttpStepResponse.class, 19439);
    id(ShellExecutionData.class, 5528); id(ExecuteCommandResponse.class, 1438); id(ShellScriptTaskResponseNG.class, 19464);
    id(CommandTaskResponse.class, 55304); id(K8sContainer.class, 7146); id(K8sPod.class, 7145); id(HelmChartInfo.class, 543312);
    id(KubernetesResourceId.class, 97031); id(K8sDeployResponse.class, 19099); id(K8sRollingDeployResponse.class, 19328);
    id(K8sRollingDeployRollbackResponse.class, 543430); id(K8sCanaryDeployResponse.class, 543250); id(K8sBGDeployResponse.class, 19436);
    id(K8sScaleResponse.class, 543241); id(K8sDryRunManifestResponse.class, 573595); id(EcsContainer.class, 573518); id(EcsTask.class, 573517);
    id(EcsRollingDeployResult.class, 573509); id(EcsRollingRollbackResult.class, 573516); id(EcsPrepareRollbackDataResult.class, 573513);
    id(EcsCanaryDeployResult.class, 573522); id(EcsCanaryDeleteResult.class, 573525); id(EcsBlueGreenCreateServiceResult.class, 573527);
    id(EcsLoadBalancerConfig.class, 573538); id(EcsBlueGreenPrepareRollbackDataResult.class, 573529);
    id(EcsBlueGreenSwapTargetGroupsResult.class, 573532); id(EcsBlueGreenRollbackResult.class, 573537); id(EcsRunTaskResult.class, 573544);
    id(EcsRollingDeployResponse.class, 573505); id(EcsRollingRollbackResponse.class, 573515); id(EcsPrepareRollbackDataResponse.class, 573512);
    id(EcsCanaryDeployResponse.class, 573521); id(EcsCanaryDeleteResponse.class, 573524); id(EcsBlueGreenCreateServiceResponse.class, 573528);
    id(EcsBlueGreenPrepareRollbackDataResponse.class, 573530); id(EcsBlueGreenSwapTargetGroupsResponse.class, 573534);
    id(EcsBlueGreenRollbackResponse.class, 573536); id(EcsRunTaskResponse.class, 573543); id(ErrorDetail.class, 54325);
    id(ConnectivityStatus.class, 19458); id(ConnectorValidationResult.class, 19059);
    id(K8sTrafficRoutingResponse.class, 20002013); id(EcsServiceData.class, 573662); id(EcsBasicPrepareRollbackData.class, 573658);
    id(EcsBasicDeployData.class, 573657); id(EcsBasicRollbackData.class, 573656); id(EcsBasicPrepareRollbackResponse.class, 573652);
    id(EcsServiceSetupResponse.class, 573653); id(EcsUpgradeContainerResponse.class, 573654); id(EcsBasicRollbackResponse.class, 573655);
    id(KubernetesConnectionTaskResponse.class, 19056); id(AwsValidateTaskResponse.class, 19361); id(ErrorCode.class, 5233);
    id(GitCommandStatus.class, 19074); id(GitCommandExecutionResponse.class, 19067);
    id(PlainMode.class, 9000001); id(BodyMode.class, 9000002); id(ZBase.class, 9000003); id(AMiddle.class, 9000004); id(Leaf.class, 9000005);
    id(Scalars.class, 9000006); id(Containers.class, 9000007);
  }
}
