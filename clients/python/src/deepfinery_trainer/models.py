"""What the service returns. Members that later versions add are kept as extra attributes."""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import NotRequired, Required, TypedDict

if TYPE_CHECKING:
    import pandas as pd

#: The state of a job.
JobState = Literal["submitted", "running", "succeeded", "failed"]


class Model(BaseModel):
    """Base of all models."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())


class SecretKey(TypedDict):
    """A key of a secret, as the value of an environment variable."""

    secret: str
    key: str


class JobRequest(TypedDict, total=False):
    """The fields of a request. `docs/api.md` describes them."""

    framework: Required[str]
    model_id: Required[str]
    run_id: Required[str]
    checkpoint_base_uri: Required[str]
    dataset_uri: Required[str]
    image: NotRequired[str]
    num_nodes: NotRequired[int]
    gpus_per_node: NotRequired[int]
    cpus_per_node: NotRequired[int]
    memory_per_node_gb: NotRequired[int]
    config_path: NotRequired[str]
    resume_from_checkpoint: NotRequired[bool]
    overwrite: NotRequired[bool]
    extra_args: NotRequired[Mapping[str, Any]]
    env: NotRequired[Mapping[str, str | SecretKey]]
    labels: NotRequired[Mapping[str, str]]
    annotations: NotRequired[Mapping[str, str]]
    namespace: NotRequired[str]
    job_name: NotRequired[str]


class JobChanges(TypedDict, total=False):
    """Fields that a clone replaces, in the same namespace; `extra_args` and `env` are merged."""

    framework: str
    model_id: str
    run_id: str
    checkpoint_base_uri: str
    dataset_uri: str
    image: str
    num_nodes: int
    gpus_per_node: int
    cpus_per_node: int
    memory_per_node_gb: int
    config_path: str
    resume_from_checkpoint: bool
    overwrite: bool
    extra_args: Mapping[str, Any]
    env: Mapping[str, str | SecretKey]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    job_name: str


class ListFilters(TypedDict, total=False):
    """Which jobs to list."""

    framework: str
    status: JobState
    namespace: str
    owner: str
    label_selector: str
    #: Number of jobs that are read at once.
    page_size: int
    #: Whether running jobs have their newest progress.
    progress: bool


class LogOptions(TypedDict, total=False):
    """Which part of which log to read."""

    #: Names of replicas such as `master-0,worker-1`, or `all`.
    replica: str
    tail: int
    #: A time (RFC 3339), or a duration such as `10m`.
    since: str
    #: Whether to read the attempt before the last restart.
    previous: bool
    timestamps: bool


class Finding(Model):
    """An error or a warning about a member of a request."""

    code: str
    pointer: str
    detail: str


class Problem(Model):
    """An error response (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = ""
    instance: str = ""
    errors: list[Finding] = Field(default_factory=list)


class Progress(Model):
    """What `train.py` reported last."""

    step: int
    total_steps: int
    loss: float | None
    tokens_per_second: float
    seconds_left: float


class CheckpointLayout(Model):
    """Where a run stores its checkpoints, logs and configuration."""

    prefix: str
    checkpoints_uri: str
    logs_uri: str
    config_uri: str
    run_config_uri: str
    step_pattern: str


class Condition(Model):
    """A condition that the operator reports."""

    type: str
    status: str
    reason: str
    message: str
    last_transition_time: datetime | None = None


class ReplicaCounts(Model):
    """Numbers of replicas of a type."""

    desired: int
    active: int
    succeeded: int
    failed: int


class Pod(Model):
    """A pod, or a replica of the local cluster."""

    name: str
    replica: str
    phase: str
    restarts: int
    node: str | None = None
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    restarts_at: datetime | None = None


class Event(Model):
    """An event of the cluster about a job or its pods."""

    type: str
    reason: str
    message: str
    object: str
    count: int
    time: datetime | None = None


class Queue(Model):
    """The queue of a job."""

    name: str
    state: str
    cluster_queue: str | None = None
    position: int | None = None
    waiting: int | None = None
    priority: int | None = None
    message: str | None = None


class JobDetails(Model):
    """A job. Lists and submissions contain only a part of the members; the others are empty."""

    name: str
    status: JobState
    detail: str
    framework: str
    run_id: str
    namespace: str = ""
    suspended: bool = False
    queued_in: str | None = None
    owner: str | None = None
    explanation: list[str] = Field(default_factory=list)
    queue: Queue | None = None
    conditions: list[Condition] = Field(default_factory=list)
    replicas: dict[str, ReplicaCounts] = Field(default_factory=dict)
    progress: Progress | None = None
    pods: list[Pod] = Field(default_factory=list)
    events: list[Event] = Field(default_factory=list)
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    model_id: str | None = None
    dataset_uri: str | None = None
    checkpoint: CheckpointLayout | None = None
    warnings: list[Finding] = Field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        """Whether the job has succeeded or failed."""
        return self.status in ("succeeded", "failed")


class JobChange(Model):
    """A change of a job: its status, its progress or its deletion."""

    kind: Literal["status", "progress", "deleted", "reset", "synced"]
    name: str = ""
    namespace: str = ""
    status: JobState | None = None
    detail: str = ""
    progress: Progress | None = None

    @property
    def is_last(self) -> bool:
        """Whether this is the last change of the job."""
        return self.kind == "deleted" or self.status in ("succeeded", "failed")


class Point(Model):
    """The values of a training step."""

    step: int
    time: datetime | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None


class Evaluation(Model):
    """The values of an evaluation."""

    step: int
    time: datetime | None = None
    eval_loss: float | None = None


class Metrics(Model):
    """The curves of a run."""

    points: list[Point] = Field(default_factory=list)
    evaluations: list[Evaluation] = Field(default_factory=list)

    def to_pandas(self) -> "pd.DataFrame":
        """The curves as a data frame with one row for each step.

        Raises:
            ImportError: pandas is not installed; `pip install deepfinery-trainer[pandas]`.
        """
        import pandas as pd

        names = ["step", "time", "loss", "tokens_per_second", "learning_rate", "grad_norm"]
        points = pd.DataFrame([point.model_dump() for point in self.points], columns=names)
        evaluated = [{"step": of.step, "eval_loss": of.eval_loss} for of in self.evaluations]
        evaluations = pd.DataFrame(evaluated, columns=["step", "eval_loss"])
        curves = points.merge(evaluations, on="step", how="outer")
        indexed: pd.DataFrame = curves.sort_values("step").set_index("step")
        return indexed


class Parallel(Model):
    """How the processes share the work."""

    world_size: int
    global_batch_size: int
    tokens_per_step: int
    summary: str


class Memory(Model):
    """An estimate of the GPU memory of one process."""

    parameters: int
    total_bytes: int
    summary: str


class Variable(Model):
    """An environment variable of a preview: a value, or a key of a secret."""

    name: str
    value: str | None = None
    secret: str | None = None
    key: str | None = None


class Preview(Model):
    """The job that a submission would create."""

    name: str
    namespace: str
    framework: str
    run_id: str
    command: list[str]
    env: list[Variable]
    checkpoint: CheckpointLayout
    resolved_args: dict[str, Any]
    warnings: list[Finding]
    manifest: dict[str, Any]
    parallel: Parallel | None = None
    memory: Memory | None = None


class Framework(Model):
    """A loaded framework plugin."""

    name: str
    version: str
    summary: str
    digest: str
    args_schema: dict[str, Any]
    source: str | None = None


class Grant(Model):
    """A role of the caller, and where it has it."""

    role: str
    namespaces: list[str]


class WhoAmI(Model):
    """The caller, as the service sees it."""

    name: str | None = None
    grants: list[Grant] = Field(default_factory=list)
