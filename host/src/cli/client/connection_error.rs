//! Why a service gave no answer, in words for the person who called it.

use crate::text;

/// Why there was no answer.
pub(super) fn why(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => match error.get_ref().and_then(|e| e.downcast_ref()) {
            Some(error) => of_tls(error),
            None => text::why(error),
        },
        ureq::Error::Rustls(error) => of_tls(error),
        ureq::Error::Tls(_) | ureq::Error::Pem(_) | ureq::Error::TlsRequired => {
            "the encrypted connection failed; use http:// if it serves no https".to_string()
        }
        ureq::Error::HostNotFound => "there is no host of this name".to_string(),
        ureq::Error::Timeout(_) => "it takes too long".to_string(),
        ureq::Error::InvalidProxyUrl | ureq::Error::ConnectProxyFailed(_) => {
            "the proxy of HTTPS_PROXY, HTTP_PROXY or ALL_PROXY cannot be used; correct or unset it"
                .to_string()
        }
        ureq::Error::Http(_) | ureq::Error::BadUri(_) => {
            "the address cannot be used; it is written as in https://trainer.example.org"
                .to_string()
        }
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => {
            "what answers there does not speak HTTP; check the port".to_string()
        }
        _ => "the connection failed".to_string(),
    }
}

fn of_tls(error: &rustls::Error) -> String {
    use rustls::CertificateError as Certificate;
    let what = match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            Certificate::Expired | Certificate::ExpiredContext { .. } => {
                "its certificate has expired; have it renewed"
            }
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                "its certificate is not valid yet; check the clock of this machine"
            }
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                "its certificate is for another name; use the name that the certificate has"
            }
            Certificate::Revoked => "its certificate was revoked; have it renewed",
            _ => {
                "its certificate is not trusted here; add its issuer to this machine's certificates"
            }
        },
        _ => "the encrypted connection failed; use http:// if it serves no https",
    };
    what.to_string()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_reason_is_told_without_the_words_of_libraries() {
        let certificate = |error| io::Error::other(rustls::Error::InvalidCertificate(error));
        for (error, said) in [
            (
                ureq::Error::Io(io::Error::from_raw_os_error(111)),
                "Connection refused",
            ),
            (
                ureq::Error::Io(certificate(rustls::CertificateError::UnknownIssuer)),
                "its certificate is not trusted here; add its issuer to this machine's certificates",
            ),
            (
                ureq::Error::Io(certificate(rustls::CertificateError::Expired)),
                "its certificate has expired; have it renewed",
            ),
            (ureq::Error::HostNotFound, "there is no host of this name"),
        ] {
            assert_eq!(why(&error), said);
        }
    }
}
