//! The one place a TLS client configuration is built: TLS 1.2 or newer, the site's own authority, and no way to switch
//! verification off.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{AlertDescription, CertificateError, ClientConfig, PeerIncompatible, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

/// A bundle of all public authorities is a fifth of this; anything larger is not a certificate file.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// The `tls` table of one route.
#[derive(Clone, Debug, Default)]
pub struct TlsSettings {
    /// Which route asks; it begins every error.
    pub route: String,
    /// PEM file of the authority that signed the server's certificate.
    pub ca: Option<PathBuf>,
    pub client: Option<ClientIdentity>,
    /// Application protocols to offer, most wanted first; none by default.
    pub alpn: Vec<Vec<u8>>,
}

/// The certificate the gateway shows, and its key as PEM.
#[derive(Clone)]
pub struct ClientIdentity {
    pub cert: PathBuf,
    pub key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientIdentity").field("cert", &self.cert).field("key", &"<key>").finish()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("route \"{route}\": tls.ca is not set; set it to the PEM file of the authority that signed the server's certificate")]
    NoCa { route: String },
    #[error("route \"{route}\": {key} {}: cannot be read: {source}; check the path and that the service's user may read it", path.display())]
    Read { route: String, key: &'static str, path: PathBuf, source: std::io::Error },
    #[error("route \"{route}\": {key} {}: larger than 1 MiB; give a file that holds only certificates in PEM", path.display())]
    TooLarge { route: String, key: &'static str, path: PathBuf },
    #[error(
        "route \"{route}\": {key} {}: no certificate found in it; give a PEM file with -----BEGIN CERTIFICATE----- lines", path.display()
    )]
    NoCertificate { route: String, key: &'static str, path: PathBuf },
    #[error("route \"{route}\": {key} {}: a certificate in it is broken ({detail}); export it again as PEM", path.display())]
    BadCertificate { route: String, key: &'static str, path: PathBuf, detail: String },
    #[error(
        "route \"{route}\": tls.key: no private key found in it; give it in PEM, unencrypted, as -----BEGIN PRIVATE KEY-----"
    )]
    NoKey { route: String },
    #[error("route \"{route}\": tls.key does not go with tls.cert {}: {detail}; renew both together", cert.display())]
    KeyMismatch { route: String, cert: PathBuf, detail: String },
    #[error("route \"{route}\": TLS cannot be set up: {detail}; report this as a bug")]
    Setup { route: String, detail: String },
}

pub fn client_config(settings: &TlsSettings) -> Result<Arc<ClientConfig>, TlsError> {
    let route = || settings.route.clone();
    let roots = roots(settings)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| TlsError::Setup { route: route(), detail: e.to_string() })?
        .with_root_certificates(roots);
    let mut config = match &settings.client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let chain = certificates(settings, "tls.cert", &client.cert)?;
            let key = PrivateKeyDer::from_pem_slice(&client.key).map_err(|_| TlsError::NoKey { route: route() })?;
            builder.with_client_auth_cert(chain, key).map_err(|e| TlsError::KeyMismatch {
                route: route(),
                cert: client.cert.clone(),
                detail: e.to_string(),
            })?
        }
    };
    config.alpn_protocols.clone_from(&settings.alpn);
    Ok(Arc::new(config))
}

fn roots(settings: &TlsSettings) -> Result<RootCertStore, TlsError> {
    let Some(path) = &settings.ca else { return Err(TlsError::NoCa { route: settings.route.clone() }) };
    let mut roots = RootCertStore::empty();
    let mut broken = None;
    for certificate in certificates(settings, "tls.ca", path)? {
        broken = roots.add(certificate).err().or(broken);
    }
    // A system's bundle holds an odd certificate now and then; one that can be used is enough.
    if let (true, Some(detail)) = (roots.is_empty(), broken) {
        return Err(TlsError::BadCertificate {
            route: settings.route.clone(),
            key: "tls.ca",
            path: path.clone(),
            detail: detail.to_string(),
        });
    }
    Ok(roots)
}

fn certificates(settings: &TlsSettings, key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let (route, path_buf) = (|| settings.route.clone(), || path.to_owned());
    let mut pem = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_PEM_BYTES + 1).read_to_end(&mut pem)).map_err(|source| TlsError::Read {
        route: route(),
        key,
        path: path_buf(),
        source,
    })?;
    if pem.len() as u64 > MAX_PEM_BYTES {
        return Err(TlsError::TooLarge { route: route(), key, path: path_buf() });
    }
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| TlsError::BadCertificate {
        route: route(),
        key,
        path: path_buf(),
        detail: e.to_string(),
    })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { route: route(), key, path: path_buf() });
    }
    Ok(found)
}

/// Why a TLS handshake failed, in the words of the person who has to mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TlsFault {
    #[error("the server's certificate has expired; renew it on the server (if it is in date, this gateway's clock is ahead)")]
    Expired,
    #[error("the server's certificate is not valid yet; this gateway's clock is probably behind: check time synchronisation")]
    NotYetValid,
    #[error("the server's certificate is for another host name; put a name it carries into url, or reissue it")]
    WrongHost,
    #[error("the server's certificate is not signed by the authority in tls.ca; give the authority that did sign it")]
    UnknownIssuer,
    #[error("the server asks for a client certificate; set tls.cert and tls.key")]
    ClientCertificateRequired,
    #[error("the server refuses this gateway's certificate (tls.cert); renew it, or have the server trust its issuer")]
    ClientCertificateRefused,
    #[error("the server speaks only a TLS older than 1.2; upgrade it")]
    ProtocolVersion,
    #[error(
        "the server found no cipher in common; allow it ECDHE ciphers (if it asks for a client certificate, set tls.cert and tls.key)"
    )]
    NothingInCommon,
    #[error("the TLS handshake failed; see the detail")]
    Other,
}

pub fn classify(error: &rustls::Error) -> TlsFault {
    match error {
        rustls::Error::InvalidCertificate(certificate) => classify_certificate(certificate),
        rustls::Error::AlertReceived(alert) => classify_alert(*alert),
        rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => TlsFault::ProtocolVersion,
        rustls::Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => TlsFault::NothingInCommon,
        _ => TlsFault::Other,
    }
}

fn classify_certificate(error: &CertificateError) -> TlsFault {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFault::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsFault::NotYetValid,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => TlsFault::WrongHost,
        // An impostor that borrows the authority's name fails by its signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsFault::UnknownIssuer,
        _ => TlsFault::Other,
    }
}

/// An alert is the server's view of this side: it speaks of our version and our certificate.
fn classify_alert(alert: AlertDescription) -> TlsFault {
    match alert {
        AlertDescription::ProtocolVersion => TlsFault::ProtocolVersion,
        // With TLS 1.2 some servers say so too when they miss a client certificate.
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => TlsFault::NothingInCommon,
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => TlsFault::ClientCertificateRequired,
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => TlsFault::ClientCertificateRefused,
        _ => TlsFault::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(ca: Option<PathBuf>) -> TlsSettings {
        TlsSettings { route: "live".into(), ca, ..TlsSettings::default() }
    }

    #[test]
    fn a_route_without_an_authority_is_told_to_set_one() {
        let error = client_config(&settings(None)).expect_err("no authority");
        assert_eq!(
            error.to_string(),
            "route \"live\": tls.ca is not set; set it to the PEM file of the authority that signed the server's certificate"
        );
    }

    #[test]
    fn an_error_names_the_file_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let message = |path: &Path| client_config(&settings(Some(path.to_owned()))).expect_err("a bad file").to_string();
        assert!(message(&path).contains("ca.pem: cannot be read"), "{}", message(&path));
        std::fs::write(&path, "not a certificate").unwrap();
        assert!(message(&path).contains("ca.pem: no certificate found in it; give"), "{}", message(&path));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(message(&path).contains("ca.pem: a certificate in it is broken"), "{}", message(&path));
        std::fs::write(&path, vec![b'x'; 2 << 20]).unwrap();
        assert!(message(&path).contains("larger than 1 MiB"), "{}", message(&path));
    }

    #[test]
    fn a_clock_fault_is_not_called_a_foreign_certificate() {
        let invalid = |e| classify(&rustls::Error::InvalidCertificate(e));
        assert_eq!(invalid(CertificateError::NotValidYet), TlsFault::NotYetValid);
        assert!(TlsFault::NotYetValid.to_string().contains("clock"));
        assert_eq!(invalid(CertificateError::Expired), TlsFault::Expired);
        assert_eq!(invalid(CertificateError::UnknownIssuer), TlsFault::UnknownIssuer);
        assert_eq!(invalid(CertificateError::NotValidForName), TlsFault::WrongHost);
        let alert = |a| classify(&rustls::Error::AlertReceived(a));
        assert_eq!(alert(AlertDescription::CertificateRequired), TlsFault::ClientCertificateRequired);
        assert_eq!(alert(AlertDescription::UnknownCA), TlsFault::ClientCertificateRefused);
        assert_eq!(alert(AlertDescription::ProtocolVersion), TlsFault::ProtocolVersion);
    }

    #[test]
    fn a_client_key_is_never_printed() {
        let identity = ClientIdentity { cert: "gw.pem".into(), key: Zeroizing::new(b"canary".to_vec()) };
        assert!(!format!("{identity:?}").contains("canary"));
        assert!(!format!("{identity:?}").contains("99, 97"));
    }
}
