//! Whom we believe to be the BMC: [`Tls`] made into a rustls configuration, and handshake failures into [`Error`]s.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::error::clean;
use crate::{Error, Tls};

/// How long the system's trust store is believed to be what it was. Reading it takes milliseconds and blocks, and a switch
/// is built for every look at a machine; a certificate that an administrator adds is seen this much later.
const ROOTS_AGE: Duration = Duration::from_secs(60);

static ROOTS: Mutex<Option<(Instant, Arc<RootCertStore>)>> = Mutex::new(None);

/// Builds the configuration of one BMC's connections.
///
/// The provider is named here, so that no process-wide default is needed.
///
/// Errors: [`Error::Config`] if there is nothing to trust: no certificate in the PEM, no pin, an empty trust store.
pub(super) fn config(tls: &Tls) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of TLS 1.2 and 1.3");
    let verified = match tls {
        Tls::Roots => versions.with_root_certificates(system_roots()?),
        Tls::Ca(pem) => versions.with_root_certificates(authorities(pem)?),
        Tls::Pins { spki_sha256 } if spki_sha256.is_empty() => {
            return Err(Error::Config("no pin is given for the BMC's certificate".into()));
        }
        Tls::Pins { spki_sha256 } => versions
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned { keys: spki_sha256.clone(), provider })),
        Tls::Insecure => versions.dangerous().with_custom_certificate_verifier(Arc::new(Anyone { provider })),
    };
    Ok(verified.with_no_client_auth())
}

/// Says what a failed handshake means.
pub(super) fn handshake_error(address: &str, error: &io::Error) -> Error {
    let address = address.to_owned();
    let reason = clean(&error.to_string(), 200);
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => Error::Certificate { address, reason },
        Some(
            rustls::Error::PeerIncompatible(_)
            | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure),
        ) => Error::OldTls { address, reason },
        Some(_) => Error::Protocol { doing: "opening TLS", reason },
        None => Error::Unreachable { address, reason: format!("TLS handshake: {reason}") },
    }
}

fn system_roots() -> Result<Arc<RootCertStore>, Error> {
    // What is kept is replaced as a whole, so a panic elsewhere leaves nothing half done.
    let mut kept = ROOTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((read, roots)) = &*kept
        && read.elapsed() < ROOTS_AGE
    {
        return Ok(roots.clone());
    }
    let roots = Arc::new(read_system_roots()?);
    *kept = Some((Instant::now(), roots.clone()));
    Ok(roots)
}

fn read_system_roots() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| clean(&error.to_string(), 200)).unwrap_or_default();
        return Err(Error::Config(format!(
            "the system's trust store is empty ({why}): set tls.caSecretName or a pin, or --ssl-insecure"
        )));
    }
    Ok(roots)
}

fn authorities(pem: &[u8]) -> Result<RootCertStore, Error> {
    let bad = |reason: String| Error::Config(format!("the CA of the BMC is not usable: {}", clean(&reason, 200)));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("no PEM certificate in it".into()));
    }
    Ok(roots)
}

/// Believes whoever holds one of these keys. What else the certificate says (name, dates, issuer) does not matter.
#[derive(Debug)]
struct Pinned {
    keys: Vec<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        let digest: [u8; 32] = Sha256::digest(key.as_ref()).into();
        if self.keys.contains(&digest) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Believes anyone. Signatures are not checked either: that would prove a key that nobody vouches for, and ring knows no
/// RSA keys under 2048 bits, which old BMCs have.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(tls: Tls) -> String {
        config(&tls).expect_err("nothing to trust").to_string()
    }

    #[test]
    fn nothing_to_trust_is_a_configuration_error() {
        assert!(refused(Tls::Ca(b"no certificate".to_vec())).contains("no PEM certificate"));
        assert!(refused(Tls::Pins { spki_sha256: vec![] }).contains("no pin"));
    }

    #[test]
    fn the_systems_roots_are_not_read_for_every_look() {
        let (one, other) = (system_roots().expect("a trust store"), system_roots().expect("a trust store"));
        assert!(Arc::ptr_eq(&one, &other));
    }

    #[test]
    fn handshake_failures_are_told_apart() {
        let label = |error: rustls::Error| {
            handshake_error("bmc:443", &io::Error::new(io::ErrorKind::InvalidData, error)).label()
        };
        assert_eq!(label(CertificateError::UnknownIssuer.into()), "BMCCertificateUntrusted");
        assert_eq!(label(rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)), "BMCTLSTooOld");
        assert_eq!(label(rustls::Error::AlertReceived(AlertDescription::HandshakeFailure)), "BMCTLSTooOld");
        assert_eq!(label(rustls::Error::AlertReceived(AlertDescription::InternalError)), "BMCProtocolError");
        let cut_off = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(handshake_error("bmc:443", &cut_off).label(), "BMCUnreachable");
    }
}
