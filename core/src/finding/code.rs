//! The codes of the service's own findings: one table with what each means and what to do about it.

use std::fmt;

/// The effect of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The request is refused.
    Refuse,
    /// The request is accepted with a warning.
    Warn,
}

/// Defines [`Code`] from one line for each code: variant, word, effect, meaning and remedy.
macro_rules! codes {
    ($($variant:ident $word:literal $effect:ident $about:literal $remedy:literal;)*) => {
        /// The code of a finding that the service makes itself. Plugins have codes of their own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $about] $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The code as findings spell it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The effect of the finding.
            pub const fn effect(self) -> Effect {
                match self { $(Self::$variant => Effect::$effect,)* }
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

codes! {
    NotJson "not-json" Refuse
        "the body is not JSON"
        "correct the text at the line and column that the sentence names; `python3 -m json.tool FILE` checks a file";
    NotYaml "not-yaml" Refuse
        "the file is not YAML"
        "correct the text at the line that the sentence names";
    Ambiguous "ambiguous" Refuse
        "readers of YAML disagree about a value without quotes, such as NO, 0755 or 1_000"
        "put the value in quotes if it is text, or write it as the sentence says";
    DuplicateName "duplicate-name" Refuse
        "a name is given twice in one object, and readers disagree about which one counts"
        "remove one of the two";
    Number "number" Refuse
        "a number that 64 bits do not hold would lose digits"
        "write it as text in quotes, or with a decimal point if it need not be exact";
    Size "size" Refuse
        "the request, or the PyTorchJob that it becomes, is too large for the cluster"
        "put large values into a file that the job reads, and name it in config_path or env";
    Required "required" Refuse
        "a field that every request needs is missing"
        "add the field";
    UnknownField "unknown-field" Refuse
        "the request has a field that does not exist"
        "correct the name; arguments of the framework belong into extra_args";
    Type "type" Refuse
        "a value has another type than its field takes"
        "write the value in the type that the sentence names: nothing is coerced, so \"4\" is not 4";
    Range "range" Refuse
        "a number is outside of the range of its field"
        "choose a number within the range that the sentence names";
    Length "length" Refuse
        "a text, a list or an object is shorter or longer than its field takes"
        "keep within the length that the sentence names";
    Choice "choice" Refuse
        "a value is not one of those that its field takes"
        "choose one of the values that the sentence lists";
    Format "format" Refuse
        "a text does not have the form of its field"
        "write the text in the form that the sentence describes";
    Name "name" Refuse
        "a name, label or annotation breaks a rule of Kubernetes, or is reserved"
        "choose a name within the rule that the sentence states";
    Uri "uri" Refuse
        "a URI cannot be used: its scheme, bucket or path is wrong, or its scheme is not allowed here"
        "correct the URI as the sentence says";
    Environment "environment" Refuse
        "a variable of env has an invalid name or value, or is set by the service itself"
        "rename or remove the variable";
    Conflict "conflict" Refuse
        "two fields exclude each other"
        "set one of the two";
    UnknownFramework "unknown-framework" Refuse
        "no plugin of this framework is loaded"
        "choose one of the frameworks that the sentence lists; `trainer frameworks` shows them";
    UnknownProfile "unknown-profile" Refuse
        "the operator has no placement profile of this name"
        "choose one of the profiles that the sentence lists";
    NoSuchNamespace "no-such-namespace" Refuse
        "the cluster has no such namespace"
        "choose an existing namespace, or have it created";
    NoSuchFile "no-such-file" Refuse
        "a file:// path that the job reads does not exist on this machine"
        "create it, or correct the path";
    Secret "secret" Refuse
        "env names a secret that does not exist, is not allowed here, or belongs to the service"
        "choose a secret that jobs may use; on the local cluster, `trainer secret set` stores one";
    IdempotencyKey "idempotency-key" Refuse
        "the Idempotency-Key header has a wrong form"
        "send 1 to 255 visible characters, such as a UUID";
    Query "query" Refuse
        "a query parameter is unknown, given twice or has a wrong value"
        "use the parameters and values that the sentence lists";
    Schema "schema" Refuse
        "a value does not fit the published schema"
        "compare the value with GET /openapi.json, or extra_args with `trainer explain FRAMEWORK`";
    PolicyImage "policy-image" Refuse
        "the policy of the namespace or of your role does not allow the image"
        "choose an image that the sentence lists, by digest if one is required, or ask the operator";
    PolicyUri "policy-uri" Refuse
        "the policy does not allow the location of the dataset, the checkpoints or an argument"
        "choose a location under a prefix that the sentence lists, or ask the operator";
    PolicyModel "policy-model" Refuse
        "the policy does not allow the model"
        "choose a model that the sentence lists, or ask the operator";
    PolicyClaim "policy-claim" Refuse
        "the policy does not allow the persistent volume claim"
        "choose a claim that the sentence lists, or ask the operator";
    PolicyProfile "policy-profile" Refuse
        "the policy does not allow the placement profile"
        "choose a profile that the sentence lists, or leave the annotation out";
    PolicyMetadata "policy-metadata" Refuse
        "the policy does not allow a label or an annotation of this key"
        "remove the key, or choose one that the sentence lists";
    PolicyEnv "policy-env" Refuse
        "env sets a variable that changes what a process loads or runs, which the policy does not allow"
        "put the setting into the image, or ask the operator to allow the variable";
    PolicySecret "policy-secret" Refuse
        "the policy does not allow jobs of the namespace to use the secret"
        "choose a secret that the sentence lists, or ask the operator";
    PolicySize "policy-size" Refuse
        "the job has more nodes or GPUs than the policy allows for one job"
        "ask for at most what the sentence names";
    PolicyTotal "policy-total" Refuse
        "with this job, all unfinished jobs together would have more than the policy allows"
        "wait until a job has ended, delete one, or ask for less";
    ReplacedEnv "replaced-env" Warn
        "env replaces a variable by which the image finds its programs, such as PATH"
        "give the whole value, with what the image's own has, or leave the variable out";
    SecretInEnv "secret-in-env" Warn
        "env seems to hold a secret, and everybody who may read the PyTorchJob can read it"
        "write {\"secret\": NAME, \"key\": KEY} as the value, and have the operator allow the secret";
    DeprecatedEnv "deprecated-env" Warn
        "env sets a variable that its library no longer reads"
        "set the variable that the sentence names";
    Queue "queue" Warn
        "the job would wait for ever in its queue, run outside of its quota, or start without all of its pods"
        "do what the sentence says, or ask the operator";
    PercentEncoding "percent-encoding" Warn
        "a URI has percent-encoded characters, which are not decoded"
        "write the characters of the object's name themselves";
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
