//! JSON Web Tokens of an OIDC provider (RFC 7519): their signature and their claims.
//!
//! Only asymmetric algorithms are accepted, and the key decides which one: neither `none` nor a
//! shared secret can stand in for a signature.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Maximum size of a token in bytes. Larger tokens are refused before they are parsed.
const MAX_BYTES: usize = 16 * 1024;
/// How far the clock of the provider may be ahead or behind, in seconds.
const LEEWAY: i64 = 60;
/// Maximum number of groups of a user.
const MAX_GROUPS: usize = 1000;

/// A token, before its signature was verified.
#[derive(Debug)]
pub(super) struct Unverified<'a> {
    header: Header,
    pub(super) claims: Claims,
    signed: &'a [u8],
    signature: Vec<u8>,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// What the token is for (RFC 8725, 3.11).
    typ: Option<String>,
    /// Extensions that must be understood. None are.
    crit: Option<Value>,
}

/// The claims that decide whether a token is valid. Another type than expected is an error, so that
/// no check is left out.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    aud: Audience,
    exp: f64,
    nbf: Option<f64>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// A public key of a provider (RFC 7517). Members that are not needed are ignored.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Key {
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    #[serde(flatten)]
    material: Material,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kty")]
enum Material {
    #[serde(rename = "RSA")]
    Rsa { n: String, e: String },
    #[serde(rename = "EC")]
    Elliptic { crv: String, x: String, y: String },
    #[serde(other)]
    Other,
}

/// What a valid token says of its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
}

impl<'a> Unverified<'a> {
    /// Reads a token; none if it has another form.
    pub(super) fn read(token: &'a str) -> Option<Self> {
        if token.len() > MAX_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
        let claims: Claims = serde_json::from_slice(&decode(claims)?).ok()?;
        if header.crit.is_some() || !header.is_of_user() || claims.is_event() {
            return None;
        }
        Some(Self {
            header,
            claims,
            signed: signed.as_bytes(),
            signature: decode(signature)?,
        })
    }

    /// Whether one of the keys could have signed it.
    pub(super) fn has_key_in(&self, keys: &[Key]) -> bool {
        self.candidates(keys).next().is_some()
    }

    /// Whether one of the keys has signed it.
    pub(super) fn is_signed_by(&self, keys: &[Key]) -> bool {
        self.candidates(keys).any(|key| self.is_signed_by_key(key))
    }

    fn candidates<'k>(&self, keys: &'k [Key]) -> impl Iterator<Item = &'k Key> {
        let named = self.header.kid.clone();
        let signs = |key: &&Key| {
            key.purpose
                .as_deref()
                .is_none_or(|purpose| purpose == "sig")
        };
        let is_named = move |key: &&Key| named.is_none() || named == key.kid;
        keys.iter().filter(signs).filter(is_named)
    }

    fn is_signed_by_key(&self, key: &Key) -> bool {
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        let verified = match (&key.material, self.header.alg.as_str()) {
            (Material::Rsa { n, e }, algorithm @ ("RS256" | "PS256")) => {
                let (Some(n), Some(e)) = (decode(n), decode(e)) else {
                    return false;
                };
                let algorithm = match algorithm {
                    "RS256" => &RSA_PKCS1_2048_8192_SHA256,
                    _ => &RSA_PSS_2048_8192_SHA256,
                };
                let key = RsaPublicKeyComponents { n, e };
                key.verify(algorithm, self.signed, &self.signature)
            }
            (Material::Elliptic { crv, x, y }, "ES256") if crv == "P-256" => {
                let (Some(x), Some(y)) = (decode(x), decode(y)) else {
                    return false;
                };
                // An uncompressed point (SEC 1, 2.3.3).
                let point = [&[4_u8][..], &x, &y].concat();
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
                key.verify(self.signed, &self.signature)
            }
            _ => return false,
        };
        verified.is_ok()
    }
}

impl Header {
    /// Whether the token is an ID token or an access token. A provider signs others with the same keys,
    /// such as logout tokens, which say nothing of who sends them.
    fn is_of_user(&self) -> bool {
        let Some(typ) = &self.typ else {
            return true;
        };
        let typ = typ.to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        matches!(typ, "jwt" | "at+jwt")
    }
}

impl Claims {
    /// Whether these are claims about an event (RFC 8417), such as a logout.
    fn is_event(&self) -> bool {
        self.others.contains_key("events")
    }

    /// Whether the token is for an audience, and valid at a time in seconds since 1970.
    pub(super) fn are_valid(&self, issuer: &str, audience: &str, now: i64) -> bool {
        let is_meant = match &self.aud {
            Audience::One(one) => one == audience,
            Audience::Several(several) => several.iter().any(|one| one == audience),
        };
        let (now, leeway) = (now as f64, LEEWAY as f64);
        let begun = self.nbf.is_none_or(|nbf| nbf <= now + leeway);
        self.iss == issuer && is_meant && now < self.exp + leeway && begun
    }

    /// The user, if the claim with the name is a text.
    pub(super) fn user(&self, username_claim: &str, groups_claim: &str) -> Option<User> {
        let name = self.others.get(username_claim)?.as_str()?;
        let groups = match self.others.get(groups_claim) {
            Some(Value::Array(groups)) => groups
                .iter()
                .filter_map(Value::as_str)
                .take(MAX_GROUPS)
                .map(str::to_string)
                .collect(),
            Some(Value::String(group)) => vec![group.clone()],
            _ => Vec::new(),
        };
        // An address that the provider has not verified can be that of somebody else.
        let is_unverified = username_claim == "email"
            && self.others.get("email_verified") != Some(&Value::Bool(true));
        (!name.is_empty() && !is_unverified).then(|| User {
            name: name.to_string(),
            groups,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    /// A key of a provider, and its public half as JSON.
    pub(in super::super) struct Signer {
        pair: EcdsaKeyPair,
        pub(in super::super) public: Value,
        id: String,
    }

    impl Signer {
        pub(in super::super) fn new(id: &str) -> Self {
            let random = SystemRandom::new();
            let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap();
            let point = pair.public_key().as_ref().to_vec();
            let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
            let public = json!({
                "kty": "EC", "crv": "P-256", "use": "sig", "kid": id,
                "x": encode(&point[1..33]), "y": encode(&point[33..]),
            });
            Self {
                pair,
                public,
                id: id.to_string(),
            }
        }

        pub(in super::super) fn sign(&self, claims: &Value) -> String {
            self.sign_with(&json!({"alg": "ES256", "kid": self.id}), claims)
        }

        fn sign_with(&self, header: &Value, claims: &Value) -> String {
            let encode = |part: &Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
            let signed = format!("{}.{}", encode(header), encode(claims));
            let signature = self
                .pair
                .sign(&SystemRandom::new(), signed.as_bytes())
                .unwrap();
            format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
        }

        fn key(&self) -> Key {
            serde_json::from_value(self.public.clone()).unwrap()
        }
    }

    fn claims() -> Value {
        json!({"iss": "https://issuer", "aud": ["trainer"], "exp": 1000, "sub": "alice",
               "groups": ["ml"]})
    }

    #[test]
    fn a_token_is_valid_with_the_signature_of_a_key_of_the_provider() {
        let (one, other) = (Signer::new("one"), Signer::new("one"));
        let token = one.sign(&claims());
        let read = Unverified::read(&token).unwrap();
        assert!(read.is_signed_by(&[one.key()]));
        assert!(!read.is_signed_by(&[other.key()]));
        assert!(!read.has_key_in(&[Signer::new("two").key()]));
        let user = read.claims.user("sub", "groups").unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups[0].as_str()),
            ("alice", "ml")
        );
        assert_eq!(read.claims.user("email", "groups"), None);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let forged = BASE64_URL_SAFE_NO_PAD.encode(claims().to_string().replace("alice", "adam"));
        let forged = format!("{header}.{forged}.{signature}");
        assert!(
            !Unverified::read(&forged)
                .unwrap()
                .is_signed_by(&[one.key()])
        );
    }

    #[test]
    fn neither_no_signature_nor_a_shared_secret_is_accepted() {
        let signer = Signer::new("one");
        for algorithm in ["none", "HS256", "RS256", "ES384", ""] {
            let token = signer.sign_with(&json!({"alg": algorithm, "kid": "one"}), &claims());
            let read = Unverified::read(&token).unwrap();
            assert!(!read.is_signed_by(&[signer.key()]), "{algorithm}");
        }
        let header = json!({"alg": "ES256", "crit": ["exp"]});
        assert!(Unverified::read(&signer.sign_with(&header, &claims())).is_none());
    }

    #[test]
    fn claims_are_for_this_service_and_for_now() {
        let valid = |claims: Value, now| {
            let claims: Claims = serde_json::from_value(claims).unwrap();
            claims.are_valid("https://issuer", "trainer", now)
        };
        assert!(valid(claims(), 999));
        assert!(!valid(claims(), 1000 + LEEWAY));
        for (claim, value) in [
            ("iss", json!("https://other")),
            ("aud", json!("other")),
            ("aud", json!([])),
            ("nbf", json!(5000)),
        ] {
            let mut claims = claims();
            claims[claim] = value;
            assert!(!valid(claims, 999), "{claim}");
        }
        for (claim, value) in [
            ("exp", json!("1000")),
            ("exp", Value::Null),
            ("nbf", json!("0")),
        ] {
            let mut claims = claims();
            claims[claim] = value;
            assert!(serde_json::from_value::<Claims>(claims).is_err(), "{claim}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_or_is_accepted(token in r"[A-Za-z0-9._-]{0,80}") {
            let keys = [Signer::new("one").key()];
            let accepted = Unverified::read(&token).is_some_and(|read| read.is_signed_by(&keys));
            prop_assert!(!accepted);
        }
    }
}
