//! A second Entra tenant beside that of the test, reached by a GraphTenant of a namespace.

use graph_emulator::Entity;
use serde_json::{Value, json};

use super::World;

/// A second Entra tenant with an app, reached by a GraphTenant.
pub(crate) struct Second {
    /// Its id.
    pub tenant_id: String,
    /// The app registration.
    pub client_id: String,
}

impl Second {
    /// Makes the GraphTenant NAME with the Secret NAME, and the tenant behind it.
    pub(crate) async fn make(world: &World, name: &str) -> Self {
        let second = Self { tenant_id: uuid::Uuid::new_v4().to_string(), client_id: uuid::Uuid::new_v4().to_string() };
        let secret = format!("second-{}", uuid::Uuid::new_v4().simple());
        world.must_not_leak(&secret);
        world.emulator.add_app(&second.tenant_id, &second.client_id, secret.as_str());
        world.write_secret(name, "clientSecret", &secret).await;
        world.apply_to(name, &second.manifest(name, "5s")).await;
        second
    }

    /// The manifest of the GraphTenant NAME with the Secret NAME.
    pub(crate) fn manifest(&self, name: &str, poll_interval: &str) -> Value {
        let name = name.trim_start_matches("elsewhere/");
        json!({
            "apiVersion": "vpptoken.io/v1alpha1", "kind": "GraphTenant", "metadata": { "name": name },
            "spec": {
                "tenantId": self.tenant_id,
                "clientId": self.client_id,
                "credentials": { "clientSecretRef": { "name": name } },
                "pollInterval": poll_interval,
            },
        })
    }

    /// The tokens that it has.
    pub(crate) fn entities(&self, world: &World) -> Vec<Entity> {
        world.emulator.entities(&self.tenant_id)
    }

    /// How many requests concerned it.
    pub(crate) fn requests(&self, world: &World) -> usize {
        let requests = world.emulator.requests().into_iter();
        requests.filter(|record| record.tenant.as_deref() == Some(self.tenant_id.as_str())).count()
    }
}

/// The part of a spec that leads to a GraphTenant.
pub(crate) fn through(name: &str) -> Value {
    json!({ "tenantRef": { "kind": "GraphTenant", "name": name } })
}
