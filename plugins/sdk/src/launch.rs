//! A job with its arguments read, and what is launched for it: command, environment, layout.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::model::Shape;
use crate::{
    Arguments, DefaultValue, Job, Layout, Literal, Model, Parallelism, Setting, Text, Training,
    json, table,
};

/// Where a replica keeps scratch files, unless the request says otherwise.
const LOCAL_ROOT: &str = "/tmp/trainer";

/// A job whose arguments have been read: what rules and environments look at.
#[derive(Debug)]
pub struct Launch {
    pub job: Job,
    pub arguments: Arguments,
    /// `None` where the sizes do not divide the processes, or are not known.
    pub parallelism: Option<Parallelism>,
    /// `None` where neither its name nor an argument says what the model is.
    pub model: Option<Model>,
    /// How the framework holds the model, where it is known.
    pub training: Option<Training>,
    /// Memory of each GPU in GiB, where the operator's profile says so.
    pub gpu_memory_gb: Option<u64>,
    /// The packages of the image as `NAME==VERSION`, separated by spaces, where the host knows them.
    pub packages: Option<String>,
}

/// The value of an argument, or what stands for it.
enum Known<'a> {
    GivenArgument(&'a Value),
    Default(Literal),
    Computed(Value),
}

impl Serialize for Known<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::GivenArgument(value) => value.serialize(serializer),
            Self::Default(literal) => literal.serialize(serializer),
            Self::Computed(value) => value.serialize(serializer),
        }
    }
}

impl Launch {
    /// Processes that train together: nodes times GPUs of each, or nodes where there is no GPU.
    pub fn world_size(&self) -> i64 {
        i64::from(self.job.num_nodes).saturating_mul(self.processes_per_node())
    }

    /// The world size in the words of an error, and what it is made of.
    pub fn world(&self) -> String {
        let Job {
            num_nodes,
            gpus_per_node,
            ..
        } = self.job;
        let world = self.world_size();
        match gpus_per_node {
            0 => format!("the world size {world} (num_nodes {num_nodes}, one process each)"),
            _ => format!(
                "the world size {world} (num_nodes {num_nodes} * gpus_per_node {gpus_per_node})"
            ),
        }
    }

    /// The shape of the job's model, where it is known by name.
    pub fn shape(&self) -> Option<&Shape> {
        match self.model.as_ref()? {
            Model::Named(shape) => Some(shape),
            Model::Sized { .. } => None,
        }
    }

    /// Whether the job trains on GPUs.
    pub fn has_gpus(&self) -> bool {
        self.job.gpus_per_node > 0
    }

    /// Processes of each node: one a GPU, and one on a node without GPUs.
    pub fn processes_per_node(&self) -> i64 {
        i64::from(self.job.gpus_per_node.max(1))
    }

    /// The value of an argument, given or by default. `None` when it has neither, and when its
    /// value was refused.
    pub fn value(&self, name: &str) -> Option<Value> {
        Some(match self.known(name)? {
            Known::GivenArgument(value) => value.clone(),
            Known::Default(literal) => literal.value(),
            Known::Computed(value) => value,
        })
    }

    /// The value of an integer argument, as [`Launch::value`] finds it.
    #[inline(always)]
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.integer_hashed(table::hash(name), name)
    }

    fn integer_hashed(&self, hash: usize, name: &str) -> Option<i64> {
        match self.known_hashed(hash, name)? {
            Known::GivenArgument(value) => value.as_i64(),
            Known::Default(Literal::Integer(integer)) => Some(integer),
            Known::Default(_) => None,
            Known::Computed(value) => value.as_i64(),
        }
    }

    /// The value of a number argument, as [`Launch::value`] finds it.
    #[inline(always)]
    pub fn number(&self, name: &str) -> Option<f64> {
        self.number_hashed(table::hash(name), name)
    }

    fn number_hashed(&self, hash: usize, name: &str) -> Option<f64> {
        match self.known_hashed(hash, name)? {
            Known::GivenArgument(value) => value.as_f64(),
            Known::Default(Literal::Number(number)) => Some(number),
            Known::Default(_) => None,
            Known::Computed(value) => value.as_f64(),
        }
    }

    /// Whether a boolean argument is on.
    #[inline(always)]
    pub fn is_on(&self, name: &str) -> bool {
        self.is_on_hashed(table::hash(name), name)
    }

    fn is_on_hashed(&self, hash: usize, name: &str) -> bool {
        match self.known_hashed(hash, name) {
            Some(Known::GivenArgument(value)) => *value == Value::Bool(true),
            Some(Known::Default(Literal::Boolean(boolean))) => boolean,
            _ => false,
        }
    }

    /// The value of a text or choice argument, as [`Launch::value`] finds it.
    #[inline(always)]
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.text_hashed(table::hash(name), name)
    }

    fn text_hashed(&self, hash: usize, name: &str) -> Option<Cow<'_, str>> {
        match self.known_hashed(hash, name)? {
            Known::GivenArgument(Value::String(text)) => Some(Cow::Borrowed(text)),
            Known::Default(Literal::Text(text)) => Some(Cow::Borrowed(text)),
            Known::Computed(Value::String(text)) => Some(Cow::Owned(text)),
            _ => None,
        }
    }

    /// Whether the image has a package, by its name in lower case with dashes. `None` where the host does
    /// not know the packages of the image.
    pub fn image_has(&self, package: &str) -> Option<bool> {
        let mut packages = self.packages.as_ref()?.split(' ');
        Some(packages.any(|word| word.split("==").next() == Some(package)))
    }

    /// The items of a list argument that the job gives.
    pub fn items(&self, name: &str) -> impl Iterator<Item = &str> {
        let items = self.arguments.given(name).and_then(Value::as_array);
        items.into_iter().flatten().filter_map(Value::as_str)
    }

    fn known(&self, name: &str) -> Option<Known<'_>> {
        self.known_hashed(table::hash(name), name)
    }

    fn known_hashed(&self, hash: usize, name: &str) -> Option<Known<'_>> {
        match self.arguments.table().find_hashed(hash, name) {
            Some(number) => self.known_at(number),
            None => self.arguments.given(name).map(Known::GivenArgument),
        }
    }

    fn known_at(&self, number: usize) -> Option<Known<'_>> {
        if let Some(value) = self.arguments.given_at(number) {
            return Some(Known::GivenArgument(value));
        }
        if self.arguments.is_refused_at(number) {
            return None;
        }
        match self.arguments.table().arguments().get(number)?.default {
            DefaultValue::Framework => None,
            DefaultValue::Literal(literal) => Some(Known::Default(literal)),
            DefaultValue::Argument(other) => self.known(other),
            DefaultValue::ModelId => Some(Known::Computed(self.job.model_id.as_str().into())),
            DefaultValue::Derived { value, .. } => value(self).map(Known::Computed),
        }
    }

    /// Whether the job gives the argument itself.
    pub fn is_given(&self, name: &str) -> bool {
        self.arguments.is_given(name)
    }

    /// Every argument that has a value, by canonical name, as a JSON object.
    pub(crate) fn resolved(&self) -> String {
        let sorted = self.arguments.table().sorted();
        let known = sorted.filter_map(|(number, a)| Some((a.name, self.known_at(number)?)));
        let unknown = self.arguments.unknown();
        let unknown = unknown.map(|(name, value)| (name, Known::GivenArgument(value)));
        json::object(known.chain(unknown))
    }

    /// Where the run keeps its files.
    pub(crate) fn layout(&self) -> Layout {
        let Job {
            checkpoint_base_uri,
            run_id,
            framework,
            ..
        } = &self.job;
        let prefix = [
            checkpoint_base_uri.as_str(),
            "/",
            run_id,
            "/framework=",
            framework,
        ]
        .concat();
        let beneath = |path: &str| [prefix.as_str(), path].concat();
        Layout {
            checkpoints_uri: beneath("/checkpoints"),
            logs_uri: beneath("/logs"),
            config_uri: beneath("/config"),
            run_config_uri: beneath("/config/run.json"),
            step_pattern: "step-{:06}".to_string(),
            prefix,
        }
    }

    /// `torchrun` with the specification's flags, `train.py` with its own options, the arguments.
    ///
    /// It is an argument list and no shell line, so nothing in a request can reach a shell. The
    /// node's rank and the master's address are the pod's variables, which the training operator
    /// sets and the kubelet expands.
    pub(crate) fn command(&self, layout: &Layout) -> Vec<Text> {
        let literal = |word: &str| Text::Literal(word.to_string());
        let template = |word: &str| Text::Template(word.to_string());
        let flag = |name: &str, value: i64| Text::Literal([name, &value.to_string()].concat());
        let job = &self.job;
        let mut command = Vec::with_capacity(128);
        command.extend([
            literal("torchrun"),
            flag("--nproc_per_node=", self.processes_per_node()),
            flag("--nnodes=", i64::from(job.num_nodes)),
            template("--node_rank=$(RANK)"),
            template("--master_addr=$(MASTER_ADDR)"),
            template("--master_port=$(MASTER_PORT)"),
            literal("train.py"),
        ]);
        let options = [
            ("--framework", &job.framework),
            ("--run-id", &job.run_id),
            ("--checkpoint-base-uri", &job.checkpoint_base_uri),
            ("--checkpoint-prefix", &layout.prefix),
            ("--dataset-uri", &job.dataset_uri),
            ("--logs-uri", &layout.logs_uri),
            ("--config-uri", &layout.config_uri),
            ("--model-id", &job.model_id),
        ];
        for (option, value) in options {
            command.extend([literal(option), literal(value)]);
        }
        if let Some(path) = &job.config_path {
            command.extend([literal("--config"), literal(path)]);
        }
        if job.resume_from_checkpoint {
            command.push(literal("--resume"));
        }
        self.arguments.command_line(&mut command);
        command
    }

    /// The environment that every framework gets.
    pub(crate) fn environment(&self) -> Environment {
        let mut environment = Environment {
            settings: Vec::with_capacity(32),
        };
        let mut set = |name, value: &str| environment.add(name, value.to_string());
        set("TRAINING_EXTRA_ARGS_JSON", &self.arguments.typed());
        set("TRAINING_LOCAL_ROOT", LOCAL_ROOT);
        set("TRAINER_LOG_LEVEL", "INFO");
        if self.world_size() > 1 {
            // NCCL's documentation keeps the other levels for debugging.
            set("NCCL_DEBUG", "WARN");
            set("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1");
        }
        if self.job.gpus_per_node > 1 {
            // torchrun would set 1 and warn about it.
            let cpus = self.job.cpus_per_node.unwrap_or(1);
            let threads = (cpus / self.job.gpus_per_node).clamp(1, 16);
            set("OMP_NUM_THREADS", &threads.to_string());
        }
        // The tokenizers' threads do not survive the fork of a data loader.
        set("TOKENIZERS_PARALLELISM", "false");
        set("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True");
        // The home folder of an image may be read only.
        set("HF_HOME", "/tmp/trainer/hf");
        set("HF_HUB_DISABLE_TELEMETRY", "1");
        set("HF_HUB_DISABLE_PROGRESS_BARS", "1");
        environment
    }
}

/// The variables that a plugin sets, in order. The request's own override them in the pod.
#[derive(Debug, Default)]
pub struct Environment {
    settings: Vec<Setting>,
}

impl Environment {
    /// Sets a variable to exactly this value; one that is set already keeps its place.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let mut settings = self.settings.iter_mut();
        match settings.find(|set| set.name == name) {
            Some(setting) => setting.value = Text::Literal(value.into()),
            None => self.add(name, value.into()),
        }
    }

    /// Sets a variable that is not set yet.
    fn add(&mut self, name: &str, value: String) {
        self.settings.push(Setting {
            name: name.to_string(),
            value: Text::Literal(value),
        });
    }

    /// Takes a variable away.
    pub fn remove(&mut self, name: &str) {
        self.settings.retain(|setting| setting.name != name);
    }

    pub(crate) fn into_settings(self) -> Vec<Setting> {
        self.settings
    }
}
