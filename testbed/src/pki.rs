//! A certificate authority for servers on loopback, made anew for each of them.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret, SecretString};
use tokio_rustls::TlsAcceptor;

/// A certificate authority: an ECDSA P-256 key and its self-signed certificate.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A server's certificate and its key, both PEM.
pub struct Identity {
    /// The certificate alone, without its authority's.
    pub certificate: String,
    /// The private key, PKCS #8.
    pub key: SecretString,
}

impl Identity {
    /// Makes what a server under this identity takes connections with.
    pub fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let certificate =
            CertificateDer::from_pem_slice(self.certificate.as_bytes()).context("reading the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(self.key.expose_secret().as_bytes()).context("reading the key")?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("choosing TLS versions")?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .context("using the certificate")?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl Authority {
    /// Makes an authority with the common name `name`.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let make = || -> Result<Self, rcgen::Error> {
            let key = KeyPair::generate()?;
            let pem = params.self_signed(&key)?.pem();
            Ok(Self { pem, issuer: Issuer::new(params, key) })
        };
        make().with_context(|| format!("making the certificate authority {name}"))
    }

    /// Its certificate, which clients are to trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Issues a server certificate for `names`: DNS names and IP addresses, as subject alternative names.
    pub fn issue(&self, names: &[&str]) -> anyhow::Result<Identity> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let make = || -> Result<Identity, rcgen::Error> {
            let mut params = CertificateParams::new(names.clone())?;
            params.distinguished_name.push(DnType::CommonName, "ringfence testbed");
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.use_authority_key_identifier_extension = true;
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &self.issuer)?.pem();
            Ok(Identity { certificate, key: key.serialize_pem().into() })
        };
        make().with_context(|| format!("issuing a certificate for {}", names.join(", ")))
    }
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, content: &SecretString) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(content.expose_secret().as_bytes())
    };
    write().with_context(|| format!("writing {}", path.display()))
}
