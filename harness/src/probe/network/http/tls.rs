// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! HTTPS without verification: whose certificate it is does not matter, as the address is the
//! guest's.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};
use url::Url;

use super::super::Trouble;
use super::super::wire::Wire;
use super::exchange::Lane;

/// TLS 1.2 and 1.3, as the kubelet has them. Nothing is resumed: each attempt is a whole handshake.
pub(super) fn config() -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The request over TLS, to the host of `url`: its name is sent, its address is not.
pub(super) fn lane(
    wire: Wire,
    config: &Arc<ClientConfig>,
    url: &Url,
    request: Vec<u8>,
) -> Result<Box<dyn Lane>, Trouble> {
    let failed = |why: String| Trouble::Failed(format!("TLS: {why}"));
    let host = url.host_str().unwrap_or_default();
    let bare = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let name = ServerName::try_from(bare)
        .map_err(|error| failed(format!("{host:?} is no name for a server: {error}")))?;
    let connection = ClientConnection::new(config.clone(), name);
    let mut connection = connection.map_err(|error| failed(error.to_string()))?;
    // The request waits for the handshake, however long it is.
    connection.set_buffer_limit(None);
    let written = connection.writer().write_all(&request);
    written.map_err(|error| failed(error.to_string()))?;
    Ok(Box::new(Tls { wire, connection }))
}

struct Tls {
    wire: Wire,
    connection: ClientConnection,
}

impl Tls {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.connection.reader().read(into) {
            // Closed without saying so, as many servers do.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
            done => done,
        }
    }
}

impl AsFd for Tls {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}

impl Lane for Tls {
    fn send(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.wire)?;
        }
        Ok(())
    }

    fn has_more(&self) -> bool {
        self.connection.wants_write()
    }

    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.read(into) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            done => return done,
        }
        // Once, as records may go on and on without a byte of the answer.
        self.connection.read_tls(&mut self.wire)?;
        if let Err(error) = self.connection.process_new_packets() {
            // The alert that says so; what happens to it does not matter any more.
            let _sent = self.connection.write_tls(&mut self.wire);
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        self.read(into)
    }

    fn explain(&self, error: &io::Error) -> Option<Trouble> {
        let error = error.get_ref()?.downcast_ref::<Error>()?;
        Some(Trouble::Failed(match error {
            Error::InvalidMessage(_) if self.connection.is_handshaking() => {
                "TLS: the other side does not speak TLS; is scheme: HTTP meant?".to_owned()
            }
            Error::AlertReceived(alert) => {
                format!("TLS: the other side refused with the alert {alert:?}")
            }
            error => format!("TLS: {error}"),
        }))
    }
}

/// Takes whatever a server shows.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        use SignatureScheme as Scheme;
        vec![
            Scheme::ECDSA_NISTP256_SHA256,
            Scheme::ECDSA_NISTP384_SHA384,
            Scheme::ECDSA_NISTP521_SHA512,
            Scheme::ED25519,
            Scheme::ED448,
            Scheme::RSA_PSS_SHA256,
            Scheme::RSA_PSS_SHA384,
            Scheme::RSA_PSS_SHA512,
            Scheme::RSA_PKCS1_SHA256,
            Scheme::RSA_PKCS1_SHA384,
            Scheme::RSA_PKCS1_SHA512,
            Scheme::ECDSA_SHA1_Legacy,
            Scheme::RSA_PKCS1_SHA1,
        ]
    }
}
