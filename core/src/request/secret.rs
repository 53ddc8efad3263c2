//! Detects environment variables that contain secrets, mainly by the words of their names.
//!
//! Values in `env` are stored in the PyTorchJob in plain text, so the author of such a request is
//! warned.

/// Words that indicate a secret anywhere in a name.
#[rustfmt::skip]
const SECRETS: &[&str] = &[
    "apikey", "apitoken", "authtoken", "accesskey", "accesstoken", "credentials", "credential",
    "dsn", "passphrase", "passwd", "password", "privatekey", "pwd", "secret", "secretkey", "secrets",
];
/// Endings that indicate a secret in names without separators, such as `PGPASSWORD`.
const ENDINGS: &[&str] = &["apikey", "passwd", "password", "secret"];
/// Last words of names whose value only describes a secret, such as its location or size.
#[rustfmt::skip]
const ABOUT: &[&str] = &[
    "backend", "bytes", "cert", "chars", "class", "count", "dir", "directory", "disabled", "enabled",
    "endpoint", "env", "expiry", "field", "file", "filename", "folder", "format", "helper", "host",
    "length", "limit", "manager", "mode", "name", "namespace", "path", "policy", "prefix", "provider",
    "rate", "region", "size", "store", "timeout", "ttl", "type", "uri", "url", "version",
];
/// Words beside `token` that refer to text tokens: `PAD_TOKEN`, `MAX_TOKEN`.
#[rustfmt::skip]
const OF_TEXT: &[&str] = &[
    "bos", "cls", "disable", "eos", "image", "mask", "max", "min", "new", "num", "pad", "per", "sep",
    "special", "unk", "implicit", "start", "end", "stop",
];
/// Words before `key` that refer to data: `PRIMARY_KEY`, `LABEL_KEY`.
#[rustfmt::skip]
const OF_DATA: &[&str] = &[
    "cache", "column", "config", "dataset", "dict", "feature", "foreign", "group", "image", "index",
    "input", "json", "label", "lookup", "map", "metric", "output", "partition", "primary", "prompt",
    "public", "response", "row", "shard", "sort", "target", "text", "value",
];
/// Endings of several words that indicate a secret, or an identifier that accompanies one.
const CONNECTIONS: &[&[&str]] = &[&["connection", "string"], &["access", "key", "id"]];

/// Whether a variable probably contains a secret: its name indicates one, or its value contains a
/// password or a private key.
pub fn looks_secret(name: &str, value: &str) -> bool {
    if value.is_empty() {
        return false;
    }
    let words = words(name);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    is_name_of_secret(&words) && !is_harmless(value) || contains_password(value)
}

fn is_name_of_secret(words: &[&str]) -> bool {
    let Some(last) = words.last() else {
        return false;
    };
    if CONNECTIONS.iter().any(|ending| words.ends_with(ending)) {
        return true;
    }
    if ABOUT.contains(last) {
        return false;
    }
    let has = |list: &[&str]| words.iter().any(|word| list.contains(word));
    let ends = |word: &&str| ENDINGS.iter().any(|ending| word.ends_with(ending));
    has(SECRETS) || words.iter().any(ends) || is_token(words) || is_key(words)
}

fn is_token(words: &[&str]) -> bool {
    let last = words.last() == Some(&"token");
    last && !words.iter().any(|word| OF_TEXT.contains(word))
}

fn is_key(words: &[&str]) -> bool {
    match words {
        [.., before, "key"] => !OF_DATA.contains(before),
        _ => false,
    }
}

/// Values that are not secrets whatever the name is: numbers, booleans and file paths.
fn is_harmless(value: &str) -> bool {
    let switch = ["true", "false", "yes", "no", "on", "off", "none"];
    switch.contains(&value.to_ascii_lowercase().as_str())
        || value.len() < 6 && value.parse::<f64>().is_ok()
        || value.starts_with('/') && !value.contains(char::is_whitespace)
}

/// Whether the value is a URL with a password, or a private key in PEM format.
fn contains_password(value: &str) -> bool {
    let user = value
        .split_once("://")
        .and_then(|(_, rest)| rest.split('/').next()?.rsplit_once('@'))
        .and_then(|(user, _)| user.split_once(':'));
    user.is_some_and(|(_, password)| !password.is_empty()) || value.contains("PRIVATE KEY-----")
}

/// Splits a name into lower-case words: `wandbApiKey` and `WANDB_API_KEY` have the same three.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for character in name.chars() {
        let begins = character.is_ascii_uppercase() && before.is_ascii_lowercase();
        if !character.is_ascii_alphanumeric() || begins {
            words.push(String::new());
        }
        if let Some(word) = words
            .last_mut()
            .filter(|_| character.is_ascii_alphanumeric())
        {
            word.push(character.to_ascii_lowercase());
        }
        before = character;
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::looks_secret;

    #[rustfmt::skip]
    const SECRET: &[&str] = &[
        "ANTHROPIC_API_KEY", "API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN", "AZURE_CLIENT_SECRET", "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN",
        "CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY", "COHERE_API_KEY", "COMET_API_KEY",
        "DATADOG_API_KEY", "DOCKER_PASSWORD", "ENCRYPTION_KEY", "GH_TOKEN", "GITHUB_TOKEN",
        "GITLAB_TOKEN", "GOOGLE_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "JWT_SECRET",
        "KAGGLE_KEY", "LAMBDA_API_KEY", "MINIO_SECRET_KEY", "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN", "MYSQL_PWD", "MY_ACCESS_KEY", "NEPTUNE_API_TOKEN", "NGC_API_KEY",
        "NPM_TOKEN", "OPENAI_API_KEY", "PGPASSWORD", "POSTGRES_PASSWORD", "REDIS_PASSWORD",
        "REPLICATE_API_TOKEN", "RUNPOD_API_KEY", "SENTRY_DSN", "SIGNING_KEY", "SLACK_BOT_TOKEN",
        "SSH_PRIVATE_KEY", "SWANLAB_API_KEY", "TOGETHER_API_KEY", "VAULT_TOKEN", "WANDB_API_KEY",
        "WANDB_APIKEY", "db_Password", "sshKeyPassphrase", "wandbApiKey",
    ];
    #[rustfmt::skip]
    const HARMLESS: &[&str] = &[
        "API_URL", "AWS_REGION", "AWS_WEB_IDENTITY_TOKEN_FILE", "BYPASS_CHECKS", "CACHE_KEY",
        "COMPASS", "EOS_TOKEN", "HF_HOME", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_TOKEN_PATH",
        "KEYBOARD", "KEYS", "LABEL_KEY", "MAX_NEW_TOKENS", "MAX_TOKENS", "MONKEY", "NUM_TOKENS",
        "PAD_TOKEN_ID", "PASSWORD_FILE", "PRIMARY_KEY", "SECRET_NAME", "SORT_KEY", "SSH_AUTH_SOCK",
        "TOKENIZER", "TOKENIZERS_PARALLELISM", "TOKENIZER_PATH", "TOKENS_PER_STEP", "TOKEN_LIMIT",
        "WANDB_PROJECT",
    ];

    #[test]
    fn a_secret_is_known_by_the_words_of_its_name() {
        for name in SECRET {
            assert!(looks_secret(name, "s3cr3t-value"), "{name}");
        }
        for name in HARMLESS {
            assert!(!looks_secret(name, "s3cr3t-value"), "{name}");
        }
    }

    #[test]
    fn a_value_says_more_than_a_name() {
        for (name, value, secret) in [
            ("DATABASE_URL", "postgres://user:pass@host/db", true),
            ("DATABASE_URL", "postgres://host/db", false),
            ("DEPLOY", "-----BEGIN OPENSSH PRIVATE KEY-----\nabc", true),
            ("GOOGLE_APPLICATION_CREDENTIALS", "/var/run/key.json", false),
            ("USE_AUTH_TOKEN", "true", false),
            ("HF_TOKEN", "", false),
            ("DB_PASSWORD", "12345678", true),
        ] {
            assert_eq!(looks_secret(name, value), secret, "{name}={value}");
        }
    }
}
