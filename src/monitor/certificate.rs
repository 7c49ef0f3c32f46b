//! Until when the certificates of a route are good.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::reading::Timestamp;

/// As large as the TLS configuration reads.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// When the first certificate of a chain ends: without any of its links it leads nowhere. `None` where the file can't be
/// read as certificates, which the route itself has said by then.
pub fn chain_ends(pem: &Path) -> Option<Timestamp> {
    ends(pem).into_iter().min()
}

/// When the last of several authorities ends: a file may hold an old one beside its successor, or all that are public.
pub fn authorities_end(pem: &Path) -> Option<Timestamp> {
    ends(pem).into_iter().max()
}

fn ends(pem: &Path) -> Vec<Timestamp> {
    let mut octets = Vec::new();
    let read = File::open(pem).and_then(|file| file.take(MAX_PEM_BYTES).read_to_end(&mut octets));
    if read.is_err() {
        return Vec::new();
    }
    CertificateDer::pem_slice_iter(&octets).filter_map(Result::ok).filter_map(|der| not_after(&der)).collect()
}

fn not_after(der: &[u8]) -> Option<Timestamp> {
    let certificate = Certificate::from_der(der).ok()?;
    let since = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    i64::try_from(since.as_millis()).ok().map(Timestamp)
}
