//! The text form of a JID, read (spec 02 §8, "Parse rules").

use std::str::FromStr;

use super::{Jid, JidError, Server};

impl FromStr for Jid {
    type Err = JidError;

    fn from_str(text: &str) -> Result<Self, JidError> {
        let Some((user, server)) = text.split_once('@') else {
            return server_only(Server::from_wire(text));
        };
        if server.contains('@') {
            return Err(JidError::SecondAt);
        }
        let server = Server::parse(server)?;
        if user.is_empty() {
            return server_only(server);
        }
        let (user, device) = split_device(user, server.max_device())?;
        let user = if server.has_legacy_agent() { strip_agent(user)? } else { user };
        let (integrator, user) = if server == Server::Interop { split_integrator(user)? } else { (0, user) };
        if user.is_empty() {
            return Err(JidError::EmptyUser);
        }
        Ok(Self::from_parts(user, server, device, integrator))
    }
}

/// A server's own JID must be a known one: any other word without `@` is no address.
fn server_only(server: Server) -> Result<Jid, JidError> {
    match server {
        Server::Other(_) => Err(JidError::UnknownServer),
        known => Ok(Jid::from_parts("", known, 0, 0)),
    }
}

fn split_device(user: &str, max: u16) -> Result<(&str, u16), JidError> {
    let Some((user, device)) = user.split_once(':') else { return Ok((user, 0)) };
    if device.contains(':') {
        return Err(JidError::SecondColon);
    }
    if !is_digits(device) {
        return Err(JidError::BadDevice);
    }
    match device.parse::<u16>() {
        Ok(device) if device <= max => Ok((user, device)),
        _ => Err(JidError::DeviceTooLarge { max }),
    }
}

/// Drops the agent. A second one is refused: it would become the agent when the JID is printed and parsed again.
fn strip_agent(user: &str) -> Result<&str, JidError> {
    let split = |text: &str| -> Option<usize> {
        let (user, agent) = text.rsplit_once('.')?;
        (is_digits(agent) && agent.len() <= 3).then_some(user.len())
    };
    let Some(user) = split(user).and_then(|len| user.get(..len)) else { return Ok(user) };
    if split(user).is_some() {
        return Err(JidError::SecondAgent);
    }
    Ok(user)
}

fn split_integrator(user: &str) -> Result<(u16, &str), JidError> {
    let (integrator, user) = user.split_once('-').ok_or(JidError::BadIntegrator)?;
    if !is_digits(integrator) {
        return Err(JidError::BadIntegrator);
    }
    let integrator = integrator.parse().map_err(|_| JidError::BadIntegrator)?;
    Ok((integrator, user))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}
