//! What is kept between runs: the identity key and the self-signed certificate.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, KeyPair};
use wzp_proto::identity::Identity;

use crate::net;

/// A self-signed certificate is made anew after this.
const CERTIFICATE_AGE: Duration = Duration::from_secs(300 * 24 * 3600);

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file cannot be read or written.
    #[error("{path}: {error}; set --state-dir to a folder that can be written")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The identity file does not hold a key.
    #[error("{0}: not an identity (64 hexadecimal digits expected); remove the file to get a new one")]
    Identity(PathBuf),
    /// The certificate could not be made.
    #[error("the self-signed certificate could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// The state folder.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Opens or makes the folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        fs::create_dir_all(path).map_err(|error| StateError::Io {
            path: path.to_owned(),
            error,
        })?;
        Ok(Self { path: path.to_owned() })
    }

    /// The gateway's identity toward natives; made at the first start, `random` seeds it.
    ///
    /// # Errors
    /// The file is there and is not an identity, or cannot be read or written.
    pub fn identity(&self, random: [u8; 32]) -> Result<Identity, StateError> {
        let path = self.path.join("identity");
        let seed = match fs::read_to_string(&path) {
            Ok(text) => {
                let mut seed = [0; 32];
                hex::decode_to_slice(text.trim(), &mut seed).map_err(|_| StateError::Identity(path))?;
                seed
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_private(&path, hex::encode(random).as_bytes())?;
                random
            }
            Err(error) => return Err(StateError::Io { path, error }),
        };
        Ok(Identity::from_seed(&seed))
    }

    /// Certificate and key, PEM, self-signed for localhost and this machine's addresses; kept for 300 days.
    ///
    /// # Errors
    /// It cannot be made, read or written.
    pub fn certificate(&self, public: &[std::net::IpAddr]) -> Result<(String, String), StateError> {
        let (cert_path, key_path) = (self.path.join("tls-cert.pem"), self.path.join("tls-key.pem"));
        let fresh = fs::metadata(&cert_path)
            .and_then(|meta| meta.modified())
            .is_ok_and(|made| SystemTime::now().duration_since(made).unwrap_or_default() < CERTIFICATE_AGE);
        if fresh && let (Ok(cert), Ok(key)) = (fs::read_to_string(&cert_path), fs::read_to_string(&key_path)) {
            return Ok((cert, key));
        }
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        names.extend(
            net::local_addresses()
                .into_iter()
                .chain(public.iter().copied())
                .map(|ip| ip.to_string()),
        );
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "wzp-gateway");
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(24 * 3600)).into();
        params.not_after = (now + Duration::from_secs(390 * 24 * 3600)).into();
        let key = KeyPair::generate()?;
        let cert = params.self_signed(&key)?.pem();
        let key = key.serialize_pem();
        write_private(&key_path, key.as_bytes())?;
        fs::write(&cert_path, &cert).map_err(|error| StateError::Io { path: cert_path, error })?;
        Ok((cert, key))
    }
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(path: &Path, content: &[u8]) -> Result<(), StateError> {
    let write = || {
        let draft = path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(|error| StateError::Io {
        path: path.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_and_certificate_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("deep/state")).unwrap();
        let first = state.identity([7; 32]).unwrap().fingerprint();
        assert_eq!(state.identity([8; 32]).unwrap().fingerprint(), first);
        let certificate = state.certificate(&[]).unwrap();
        assert_eq!(state.certificate(&[]).unwrap(), certificate);
    }

    #[test]
    fn spoilt_identity_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("identity"), "not hex").unwrap();
        let error = StateDir::open(folder.path())
            .unwrap()
            .identity([7; 32])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("identity") && error.contains("64 hexadecimal digits"),
            "{error}"
        );
    }
}
