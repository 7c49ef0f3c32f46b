//! Throw-away certificates, made with the `openssl` command: a CA, and leaves that are right, expired, or for another
//! host. A second `Pki` is the foreign CA.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub struct Pki {
    directory: TempDir,
}

/// Paths of a PEM certificate and its PEM key.
#[derive(Clone, Debug)]
pub struct Identity {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Every leaf may do both, so one kind serves broker and gateway.
const LEAF: &str = "basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature,keyEncipherment
extendedKeyUsage=serverAuth,clientAuth
";

/// Validity of whatever is valid.
const FROM: &str = "20200101000000Z";
const UNTIL: &str = "20350101000000Z";

const CA: &str = "[ca]
default_ca = this
[this]
database = index.txt
new_certs_dir = .
policy = any
default_md = sha256
unique_subject = no
rand_serial = yes
[any]
commonName = supplied
";

impl Pki {
    pub fn new() -> Self {
        let pki = Self { directory: TempDir::new().expect("a directory for certificates") };
        std::fs::write(pki.path("index.txt"), "").expect("written");
        std::fs::write(pki.path("ca.conf"), CA).expect("written");
        pki.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 3650 \
             -subj /CN=Throw-away-CA -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign",
        );
        pki
    }

    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// A server on this machine: `localhost`, 127.0.0.1 and ::1.
    pub fn server(&self) -> Identity {
        self.leaf("server", "localhost", "DNS:localhost,IP:127.0.0.1,IP:::1", FROM, UNTIL)
    }

    /// The same for a guest of this machine, which knows it under another address.
    pub fn server_at(&self, address: &str) -> Identity {
        self.leaf("server-at", "localhost", &format!("DNS:localhost,IP:127.0.0.1,IP:{address}"), FROM, UNTIL)
    }

    pub fn server_of_another_host(&self) -> Identity {
        self.leaf("elsewhere", "elsewhere.example", "DNS:elsewhere.example", FROM, UNTIL)
    }

    pub fn expired_server(&self) -> Identity {
        self.leaf("expired", "localhost", "DNS:localhost,IP:127.0.0.1", FROM, "20210101000000Z")
    }

    pub fn server_not_valid_yet(&self) -> Identity {
        self.leaf("early", "localhost", "DNS:localhost,IP:127.0.0.1", "20400101000000Z", "20450101000000Z")
    }

    /// With a key that can be exchanged by RSA, as old servers do it.
    pub fn rsa_server(&self) -> Identity {
        self.leaf_of("rsa:2048", "rsa", "localhost", "DNS:localhost,IP:127.0.0.1", FROM, UNTIL)
    }

    /// A client; a broker may take its common name as the user name.
    pub fn client(&self, name: &str) -> Identity {
        self.leaf(name, name, &format!("DNS:{name}"), FROM, UNTIL)
    }

    pub fn expired_client(&self, name: &str) -> Identity {
        self.leaf(&format!("{name}-expired"), name, &format!("DNS:{name}"), FROM, "20210101000000Z")
    }

    fn leaf(&self, file: &str, common_name: &str, names: &str, from: &str, until: &str) -> Identity {
        self.leaf_of("ec -pkeyopt ec_paramgen_curve:prime256v1", file, common_name, names, from, until)
    }

    fn leaf_of(&self, key: &str, file: &str, common_name: &str, names: &str, from: &str, until: &str) -> Identity {
        std::fs::write(self.path(&format!("{file}.ext")), format!("{LEAF}subjectAltName={names}\n")).expect("written");
        self.openssl(&format!("req -newkey {key} -nodes -keyout {file}.key -out {file}.csr -subj /CN={common_name}"));
        self.openssl(&format!(
            "ca -batch -notext -config ca.conf -cert ca.pem -keyfile ca.key -in {file}.csr -out {file}.pem -extfile {file}.ext \
             -startdate {from} -enddate {until}"
        ));
        Identity { cert: self.path(&format!("{file}.pem")), key: self.path(&format!("{file}.key")) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        run_quietly(Command::new("openssl").args(arguments.split_whitespace()).current_dir(self.directory.path()));
    }
}

/// Runs a tool to its end; panics with what it said when it fails.
pub fn run_quietly(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
}

/// A copy with the mode a credential needs.
pub fn install_credential(from: &Path, to: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::copy(from, to).expect("a credential is copied");
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o400)).expect("its mode is set");
}
