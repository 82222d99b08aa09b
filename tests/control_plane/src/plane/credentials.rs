//! A certificate authority, the certificates it signs, and the key for ServiceAccount tokens; new for each control
//! plane. Pure except for randomness.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_RSA_SHA256, RsaKeySize,
};

use crate::Result;

/// A certificate and its key.
pub(super) struct Identity {
    pub(super) certificate_pem: String,
    pub(super) key_pem: String,
}

impl Identity {
    /// Both in one text, as TLS clients take them.
    pub(super) fn identity_pem(&self) -> String {
        format!("{}{}", self.key_pem, self.certificate_pem)
    }
}

pub(super) struct Credentials {
    pub(super) ca_pem: String,
    pub(super) server: Identity,
    pub(super) admin: Identity,
    pub(super) manager: Identity,
    /// RSA, as most clusters have it: identity providers accept RS256 for federated tokens, some nothing else.
    pub(super) signing_key_pem: String,
    pub(super) signing_public_key_pem: String,
}

impl Credentials {
    pub(super) fn make() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "control-plane");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let ca_pem = params.self_signed(&key)?.pem();
        let ca = Issuer::new(params, key);

        let names =
            ["127.0.0.1", "localhost", "10.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let signing_key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
        Ok(Self {
            server: signed(&ca, &names, ("kube-apiserver", None), ExtendedKeyUsagePurpose::ServerAuth)?,
            admin: client(&ca, "admin")?,
            manager: client(&ca, "system:kube-controller-manager")?,
            signing_key_pem: signing_key.serialize_pem(),
            signing_public_key_pem: signing_key.public_key_pem(),
            ca_pem,
        })
    }
}

/// The group `system:masters` may do everything. The controller manager is in it too: it acts for all its controllers,
/// each of which would otherwise need a ServiceAccount of its own first.
fn client(ca: &Issuer<'_, KeyPair>, name: &str) -> Result<Identity> {
    signed(ca, &[], (name, Some("system:masters")), ExtendedKeyUsagePurpose::ClientAuth)
}

fn signed(
    ca: &Issuer<'_, KeyPair>,
    names: &[&str],
    (user, group): (&str, Option<&str>),
    purpose: ExtendedKeyUsagePurpose,
) -> Result<Identity> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    Ok(Identity { certificate_pem: params.signed_by(&key, ca)?.pem(), key_pem: key.serialize_pem() })
}
