//! The messages, innermost first, as `descriptor` of kfp-pipeline-spec and kfp-kubernetes lists them.

use super::{
    Message,
    Shape::{List, Map as MapOf, One},
};

static TASK_INPUT_PARAMETER_TASK_OUTPUT_PARAMETER: Message = Message {
    plain: &["producerTask", "outputParameterKey"],
    nested: &[],
};
static VALUE: Message = Message {
    plain: &["intValue", "doubleValue", "stringValue"],
    nested: &[],
};
static VALUE_OR_RUNTIME_PARAMETER: Message = Message {
    plain: &["runtimeParameter", "constant"],
    nested: &[("constantValue", One(&VALUE))],
};
static TASK_INPUT_PARAMETER_TASK_FINAL_STATUS: Message = Message {
    plain: &["producerTask"],
    nested: &[],
};
static TASK_INPUT_PARAMETER: Message = Message {
    plain: &["componentInputParameter", "parameterExpressionSelector"],
    nested: &[
        (
            "taskOutputParameter",
            One(&TASK_INPUT_PARAMETER_TASK_OUTPUT_PARAMETER),
        ),
        ("runtimeValue", One(&VALUE_OR_RUNTIME_PARAMETER)),
        ("taskFinalStatus", One(&TASK_INPUT_PARAMETER_TASK_FINAL_STATUS)),
    ],
};
static SECRET_AS_VOLUME: Message = Message {
    plain: &["secretName", "mountPath", "optional"],
    nested: &[("secretNameParameter", One(&TASK_INPUT_PARAMETER))],
};
static SECRET_AS_ENV_SECRET_KEY_TO_ENV_MAP: Message = Message {
    plain: &["secretKey", "envVar"],
    nested: &[],
};
static SECRET_AS_ENV: Message = Message {
    plain: &["secretName", "optional"],
    nested: &[
        ("keyToEnv", List(&SECRET_AS_ENV_SECRET_KEY_TO_ENV_MAP)),
        ("secretNameParameter", One(&TASK_INPUT_PARAMETER)),
    ],
};
static PVC_MOUNT: Message = Message {
    plain: &["constant", "componentInputParameter", "mountPath", "subPath"],
    nested: &[
        (
            "taskOutputParameter",
            One(&TASK_INPUT_PARAMETER_TASK_OUTPUT_PARAMETER),
        ),
        ("pvcNameParameter", One(&TASK_INPUT_PARAMETER)),
    ],
};
static NODE_SELECTOR: Message = Message {
    plain: &["labels"],
    nested: &[("nodeSelectorJson", One(&TASK_INPUT_PARAMETER))],
};
static POD_METADATA: Message = Message {
    plain: &["labels", "annotations"],
    nested: &[],
};
static IMAGE_PULL_SECRET: Message = Message {
    plain: &["secretName"],
    nested: &[("secretNameParameter", One(&TASK_INPUT_PARAMETER))],
};
static CONFIG_MAP_AS_VOLUME: Message = Message {
    plain: &["configMapName", "mountPath", "optional"],
    nested: &[("configMapNameParameter", One(&TASK_INPUT_PARAMETER))],
};
static CONFIG_MAP_AS_ENV_CONFIG_MAP_KEY_TO_ENV_MAP: Message = Message {
    plain: &["configMapKey", "envVar"],
    nested: &[],
};
static CONFIG_MAP_AS_ENV: Message = Message {
    plain: &["configMapName", "optional"],
    nested: &[
        ("keyToEnv", List(&CONFIG_MAP_AS_ENV_CONFIG_MAP_KEY_TO_ENV_MAP)),
        ("configMapNameParameter", One(&TASK_INPUT_PARAMETER)),
    ],
};
static FIELD_PATH_AS_ENV: Message = Message {
    plain: &["name", "fieldPath"],
    nested: &[],
};
static TOLERATION: Message = Message {
    plain: &["key", "operator", "value", "effect", "tolerationSeconds"],
    nested: &[("tolerationJson", One(&TASK_INPUT_PARAMETER))],
};
static GENERIC_EPHEMERAL_VOLUME: Message = Message {
    plain: &[
        "volumeName",
        "mountPath",
        "accessModes",
        "size",
        "defaultStorageClass",
        "storageClassName",
    ],
    nested: &[("metadata", One(&POD_METADATA))],
};
static SELECTOR_REQUIREMENT: Message = Message {
    plain: &["key", "operator", "values"],
    nested: &[],
};
static NODE_AFFINITY_TERM: Message = Message {
    plain: &["weight"],
    nested: &[
        ("matchExpressions", List(&SELECTOR_REQUIREMENT)),
        ("matchFields", List(&SELECTOR_REQUIREMENT)),
        ("nodeAffinityJson", One(&TASK_INPUT_PARAMETER)),
    ],
};
static POD_AFFINITY_TERM: Message = Message {
    plain: &[
        "matchPodLabels",
        "topologyKey",
        "namespaces",
        "matchNamespaceLabels",
        "weight",
        "anti",
    ],
    nested: &[
        ("matchPodExpressions", List(&SELECTOR_REQUIREMENT)),
        ("matchNamespaceExpressions", List(&SELECTOR_REQUIREMENT)),
    ],
};
static ENABLED_SHARED_MEMORY: Message = Message {
    plain: &["volumeName", "size"],
    nested: &[],
};
static EMPTY_DIR_MOUNT: Message = Message {
    plain: &["volumeName", "mountPath", "medium", "sizeLimit"],
    nested: &[],
};
static SECURITY_CONTEXT: Message = Message {
    plain: &["runAsUser", "runAsGroup", "runAsNonRoot"],
    nested: &[],
};
static KUBERNETES_EXECUTOR_CONFIG: Message = Message {
    plain: &["initContainers", "imagePullPolicy", "activeDeadlineSeconds"],
    nested: &[
        ("secretAsVolume", List(&SECRET_AS_VOLUME)),
        ("secretAsEnv", List(&SECRET_AS_ENV)),
        ("pvcMount", List(&PVC_MOUNT)),
        ("nodeSelector", One(&NODE_SELECTOR)),
        ("podMetadata", One(&POD_METADATA)),
        ("imagePullSecret", List(&IMAGE_PULL_SECRET)),
        ("configMapAsVolume", List(&CONFIG_MAP_AS_VOLUME)),
        ("configMapAsEnv", List(&CONFIG_MAP_AS_ENV)),
        ("fieldPathAsEnv", List(&FIELD_PATH_AS_ENV)),
        ("tolerations", List(&TOLERATION)),
        ("genericEphemeralVolume", List(&GENERIC_EPHEMERAL_VOLUME)),
        ("nodeAffinity", List(&NODE_AFFINITY_TERM)),
        ("podAffinity", List(&POD_AFFINITY_TERM)),
        ("enabledSharedMemory", One(&ENABLED_SHARED_MEMORY)),
        ("emptyDirMounts", List(&EMPTY_DIR_MOUNT)),
        ("securityContext", One(&SECURITY_CONTEXT)),
    ],
};
static PLATFORM_DEPLOYMENT_CONFIG: Message = Message {
    plain: &[],
    nested: &[("executors", MapOf(&KUBERNETES_EXECUTOR_CONFIG))],
};
static KUBERNETES_WORKSPACE_CONFIG: Message = Message {
    plain: &["pvcSpecPatch"],
    nested: &[],
};
static WORKSPACE_CONFIG: Message = Message {
    plain: &["size"],
    nested: &[("kubernetes", One(&KUBERNETES_WORKSPACE_CONFIG))],
};
static PIPELINE_CONFIG: Message = Message {
    plain: &[
        "resourceTtlOnCompletion",
        "resourceTtlOnSuccess",
        "resourceTtlOnFailure",
        "activeDeadlineSeconds",
    ],
    nested: &[("workspace", One(&WORKSPACE_CONFIG))],
};
static SINGLE_PLATFORM: Message = Message {
    plain: &["platform", "config"],
    nested: &[
        ("deploymentSpec", One(&PLATFORM_DEPLOYMENT_CONFIG)),
        ("pipelineConfig", One(&PIPELINE_CONFIG)),
    ],
};
pub(super) static PLATFORM: Message = Message {
    plain: &[],
    nested: &[("platforms", MapOf(&SINGLE_PLATFORM))],
};
static PIPELINE_INFO: Message = Message {
    plain: &["name", "displayName", "description"],
    nested: &[],
};
static LIFECYCLE_EXEC: Message = Message {
    plain: &["command", "args"],
    nested: &[],
};
static LIFECYCLE: Message = Message {
    plain: &[],
    nested: &[("preCacheCheck", One(&LIFECYCLE_EXEC))],
};
static ACCELERATOR: Message = Message {
    plain: &["type", "count", "resourceType", "resourceCount"],
    nested: &[],
};
static RESOURCES: Message = Message {
    plain: &[
        "cpuLimit",
        "memoryLimit",
        "cpuRequest",
        "memoryRequest",
        "resourceCpuLimit",
        "resourceMemoryLimit",
        "resourceCpuRequest",
        "resourceMemoryRequest",
    ],
    nested: &[("accelerator", One(&ACCELERATOR))],
};
static ENV_VAR: Message = Message {
    plain: &["name", "value"],
    nested: &[],
};
static CONTAINER: Message = Message {
    plain: &["image", "command", "args"],
    nested: &[
        ("lifecycle", One(&LIFECYCLE)),
        ("resources", One(&RESOURCES)),
        ("env", List(&ENV_VAR)),
    ],
};
static ARTIFACT_TYPE_SCHEMA: Message = Message {
    plain: &["schemaTitle", "schemaUri", "instanceSchema", "schemaVersion"],
    nested: &[],
};
static DEPLOYMENT_IMPORTER: Message = Message {
    plain: &["reimport", "metadata", "downloadToWorkspace"],
    nested: &[
        ("artifactUri", One(&VALUE_OR_RUNTIME_PARAMETER)),
        ("typeSchema", One(&ARTIFACT_TYPE_SCHEMA)),
        ("properties", MapOf(&VALUE_OR_RUNTIME_PARAMETER)),
        ("customProperties", MapOf(&VALUE_OR_RUNTIME_PARAMETER)),
    ],
};
static DEPLOYMENT_EXECUTOR: Message = Message {
    plain: &["resolver", "customJob"],
    nested: &[
        ("container", One(&CONTAINER)),
        ("importer", One(&DEPLOYMENT_IMPORTER)),
    ],
};
static PIPELINE_DEPLOYMENT_CONFIG: Message = Message {
    plain: &[],
    nested: &[("executors", MapOf(&DEPLOYMENT_EXECUTOR))],
};
static COMPONENT_INPUTS_SPEC_ARTIFACT: Message = Message {
    plain: &["isArtifactList", "isOptional", "description"],
    nested: &[("artifactType", One(&ARTIFACT_TYPE_SCHEMA))],
};
static COMPONENT_INPUTS_SPEC_PARAMETER: Message = Message {
    plain: &[
        "type",
        "parameterType",
        "defaultValue",
        "isOptional",
        "description",
        "literals",
    ],
    nested: &[],
};
static COMPONENT_INPUTS: Message = Message {
    plain: &[],
    nested: &[
        ("artifacts", MapOf(&COMPONENT_INPUTS_SPEC_ARTIFACT)),
        ("parameters", MapOf(&COMPONENT_INPUTS_SPEC_PARAMETER)),
    ],
};
static COMPONENT_OUTPUTS_SPEC_ARTIFACT: Message = Message {
    plain: &["metadata", "isArtifactList", "description"],
    nested: &[
        ("artifactType", One(&ARTIFACT_TYPE_SCHEMA)),
        ("properties", MapOf(&VALUE_OR_RUNTIME_PARAMETER)),
        ("customProperties", MapOf(&VALUE_OR_RUNTIME_PARAMETER)),
    ],
};
static COMPONENT_OUTPUTS_SPEC_PARAMETER: Message = Message {
    plain: &["type", "parameterType", "description"],
    nested: &[],
};
static COMPONENT_OUTPUTS: Message = Message {
    plain: &[],
    nested: &[
        ("artifacts", MapOf(&COMPONENT_OUTPUTS_SPEC_ARTIFACT)),
        ("parameters", MapOf(&COMPONENT_OUTPUTS_SPEC_PARAMETER)),
    ],
};
static PIPELINE_TASK_INFO: Message = Message {
    plain: &["name"],
    nested: &[],
};
static TASK_INPUTS_SPEC_INPUT_ARTIFACT_SPEC_TASK_OUTPUT_ARTIFACT: Message = Message {
    plain: &["producerTask", "outputArtifactKey"],
    nested: &[],
};
static TASK_INPUTS_SPEC_INPUT_ARTIFACT: Message = Message {
    plain: &["componentInputArtifact"],
    nested: &[(
        "taskOutputArtifact",
        One(&TASK_INPUTS_SPEC_INPUT_ARTIFACT_SPEC_TASK_OUTPUT_ARTIFACT),
    )],
};
static TASK_INPUTS: Message = Message {
    plain: &[],
    nested: &[
        ("parameters", MapOf(&TASK_INPUT_PARAMETER)),
        ("artifacts", MapOf(&TASK_INPUTS_SPEC_INPUT_ARTIFACT)),
    ],
};
static PIPELINE_TASK_SPEC_CACHING_OPTIONS: Message = Message {
    plain: &["enableCache", "cacheKey"],
    nested: &[],
};
static COMPONENT_REF: Message = Message {
    plain: &["name"],
    nested: &[],
};
static PIPELINE_TASK_SPEC_TRIGGER_POLICY: Message = Message {
    plain: &["condition", "strategy"],
    nested: &[],
};
static ARTIFACT_ITERATOR_SPEC_ITEMS: Message = Message {
    plain: &["inputArtifact"],
    nested: &[],
};
static ARTIFACT_ITERATOR: Message = Message {
    plain: &["itemInput"],
    nested: &[("items", One(&ARTIFACT_ITERATOR_SPEC_ITEMS))],
};
static PARAMETER_ITERATOR_SPEC_ITEMS: Message = Message {
    plain: &["raw", "inputParameter"],
    nested: &[],
};
static PARAMETER_ITERATOR: Message = Message {
    plain: &["itemInput"],
    nested: &[("items", One(&PARAMETER_ITERATOR_SPEC_ITEMS))],
};
static PIPELINE_TASK_SPEC_RETRY_POLICY: Message = Message {
    plain: &[
        "maxRetryCount",
        "backoffDuration",
        "backoffFactor",
        "backoffMaxDuration",
    ],
    nested: &[],
};
static PIPELINE_TASK_SPEC_ITERATOR_POLICY: Message = Message {
    plain: &["parallelismLimit"],
    nested: &[],
};
static PIPELINE_TASK: Message = Message {
    plain: &["dependentTasks"],
    nested: &[
        ("taskInfo", One(&PIPELINE_TASK_INFO)),
        ("inputs", One(&TASK_INPUTS)),
        ("cachingOptions", One(&PIPELINE_TASK_SPEC_CACHING_OPTIONS)),
        ("componentRef", One(&COMPONENT_REF)),
        ("triggerPolicy", One(&PIPELINE_TASK_SPEC_TRIGGER_POLICY)),
        ("artifactIterator", One(&ARTIFACT_ITERATOR)),
        ("parameterIterator", One(&PARAMETER_ITERATOR)),
        ("retryPolicy", One(&PIPELINE_TASK_SPEC_RETRY_POLICY)),
        ("iteratorPolicy", One(&PIPELINE_TASK_SPEC_ITERATOR_POLICY)),
    ],
};
static DAG_OUTPUTS_SPEC_ARTIFACT_SELECTOR: Message = Message {
    plain: &["producerSubtask", "outputArtifactKey"],
    nested: &[],
};
static DAG_OUTPUTS_SPEC_DAG_OUTPUT_ARTIFACT: Message = Message {
    plain: &[],
    nested: &[("artifactSelectors", List(&DAG_OUTPUTS_SPEC_ARTIFACT_SELECTOR))],
};
static DAG_OUTPUTS_SPEC_PARAMETER_SELECTOR: Message = Message {
    plain: &["producerSubtask", "outputParameterKey"],
    nested: &[],
};
static DAG_OUTPUTS_SPEC_PARAMETER_SELECTORS: Message = Message {
    plain: &[],
    nested: &[("parameterSelectors", List(&DAG_OUTPUTS_SPEC_PARAMETER_SELECTOR))],
};
static DAG_OUTPUTS_SPEC_DAG_OUTPUT_PARAMETER: Message = Message {
    plain: &[],
    nested: &[
        ("valueFromParameter", One(&DAG_OUTPUTS_SPEC_PARAMETER_SELECTOR)),
        ("valueFromOneof", One(&DAG_OUTPUTS_SPEC_PARAMETER_SELECTORS)),
    ],
};
static DAG_OUTPUTS: Message = Message {
    plain: &[],
    nested: &[
        ("artifacts", MapOf(&DAG_OUTPUTS_SPEC_DAG_OUTPUT_ARTIFACT)),
        ("parameters", MapOf(&DAG_OUTPUTS_SPEC_DAG_OUTPUT_PARAMETER)),
    ],
};
static DAG: Message = Message {
    plain: &[],
    nested: &[("tasks", MapOf(&PIPELINE_TASK)), ("outputs", One(&DAG_OUTPUTS))],
};
static TASK_CONFIG_PASSTHROUGH: Message = Message {
    plain: &["field", "applyToTask"],
    nested: &[],
};
static COMPONENT: Message = Message {
    plain: &["executorLabel"],
    nested: &[
        ("inputDefinitions", One(&COMPONENT_INPUTS)),
        ("outputDefinitions", One(&COMPONENT_OUTPUTS)),
        ("dag", One(&DAG)),
        ("singlePlatformSpecs", List(&SINGLE_PLATFORM)),
        ("taskConfigPassthroughs", List(&TASK_CONFIG_PASSTHROUGH)),
    ],
};
pub(super) static PIPELINE: Message = Message {
    plain: &["sdkVersion", "schemaVersion", "defaultPipelineRoot"],
    nested: &[
        ("pipelineInfo", One(&PIPELINE_INFO)),
        ("deploymentSpec", One(&PIPELINE_DEPLOYMENT_CONFIG)),
        ("components", MapOf(&COMPONENT)),
        ("root", One(&COMPONENT)),
    ],
};
