//! The kinds of problem document: one table with the status, name, title, meaning and remedy of each.

/// Defines [`Kind`] from one line for each kind.
macro_rules! kinds {
    ($($variant:ident $status:literal $name:literal $title:literal $about:literal $remedy:literal;)*) => {
        /// A kind of problem (RFC 9457).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $(#[doc = $about] $variant,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// The last part of the `type`, after [`TYPE_PREFIX`].
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The `title`.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// What it means.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }

            /// What to do about it.
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

/// What the `type` of every problem document begins with.
pub const TYPE_PREFIX: &str = "urn:trainer:problem:";

kinds! {
    InvalidRequest 400 "invalid-request" "Invalid request"
        "the request is wrong; `errors` lists every finding with its code"
        "correct what the findings name";
    NameTaken 400 "name-taken" "Job name taken"
        "the namespace has a job of this name"
        "choose another run_id or job_name, or delete the job first";
    PrefixTaken 400 "prefix-taken" "Checkpoint prefix taken"
        "another job writes to this checkpoint prefix"
        "choose another run_id, or wait until that job has ended";
    HasCheckpoints 400 "has-checkpoints" "Checkpoint prefix has checkpoints"
        "the checkpoint prefix has checkpoints of an earlier run"
        "set resume_from_checkpoint to continue, overwrite to replace them, or another run_id";
    KeyReused 422 "idempotency-key-reused" "Idempotency key reused"
        "the Idempotency-Key came with another request before"
        "use a new key for a new request";
    Unauthorized 401 "unauthorized" "Unauthorized"
        "the token is missing, wrong or expired"
        "send the service's token as X-TRAINER-TOKEN; the commands take it from TRAINER_API_TOKEN";
    NoSuchRoute 404 "no-such-route" "Not found"
        "the service has nothing at this path"
        "GET /openapi.json lists the paths";
    NoSuchJob 404 "no-such-job" "Job not found"
        "no job of this name is in the namespace"
        "check the name and the namespace; `trainer list` shows the jobs";
    NoLog 404 "no-log" "No log"
        "the replica has written no log yet, or its log is gone"
        "wait until the replica has started, or ask for another one";
    AmbiguousJob 400 "ambiguous-job" "Several jobs of this name"
        "several namespaces have a job of this name"
        "name the namespace";
    JobEnded 400 "job-ended" "Job has ended"
        "a job that has ended can be neither suspended nor resumed"
        "submit the request again";
    NotAdmitted 400 "not-admitted" "Not admitted by the cluster"
        "a quota, a policy or a webhook of the cluster refuses the job"
        "change the request as the cluster's sentence says, or ask its operator";
    NamespaceNotAllowed 403 "namespace-not-allowed" "Namespace not allowed"
        "this service does not serve the namespace, or you have no role in it"
        "choose a namespace that the sentence lists";
    Forbidden 403 "forbidden" "Not allowed"
        "your role does not allow the operation"
        "ask the operator for the role that the sentence names; `trainer whoami` shows yours";
    ForeignHost 403 "foreign-host" "Foreign host"
        "a service without a token answers only to its addresses and to localhost"
        "use an address, or have the operator set TRAINER_ALLOWED_HOSTS or a token";
    NoSuchFramework 404 "no-such-framework" "Framework not found"
        "no plugin of this framework is loaded"
        "choose one of the frameworks that the sentence lists";
    NoEarlierVersion 409 "no-earlier-version" "No earlier version"
        "the framework has no earlier version to go back to"
        "load the version that you want";
    NoSuchMethod 405 "no-such-method" "Method not allowed"
        "the path does not take this method"
        "use a method that the Allow header lists";
    TooLarge 413 "too-large" "Body too large"
        "the body is larger than the service reads"
        "put large values into a file that the job reads";
    SlowBody 408 "slow-body" "Body too slow"
        "the body did not arrive in time"
        "send the request again over a better connection";
    MediaType 415 "media-type" "Unsupported media type"
        "the body is not declared as JSON"
        "send the header Content-Type: application/json";
    Busy 429 "busy" "Too many requests"
        "too much is asked at once"
        "try again after the seconds that the Retry-After header names";
    Internal 500 "internal" "Internal error"
        "the service failed"
        "report the request's id; the service's log has the cause";
    PluginFailed 502 "plugin-failed" "Plugin failed"
        "the framework's plugin failed; nothing is known to be wrong with the request"
        "report it to the operator: the service's log has the cause";
    ClusterUnavailable 503 "cluster-unavailable" "Cluster unavailable"
        "the cluster cannot be reached, cannot store the job, or denies the service"
        "try again after the seconds that the Retry-After header names, then ask the operator";
    ClusterTimeout 504 "cluster-timeout" "Cluster took too long"
        "the cluster did not answer in time, and may still do what was asked"
        "look at the job before you send the request again";
    PluginResting 503 "plugin-resting" "Plugin out of service"
        "the framework's plugin failed several times in a row and is out of service for a while"
        "try again after the seconds that the Retry-After header names";
}
