//! Groups of an account: `client.groups()`.

use super::{Client, Error};
use crate::{
    engine::{Command, GroupRequest, Reply},
    event::GroupObject,
    jid::Jid,
    stanza::{
        group::Setting,
        iq::groups::{MemberAction, MemberResult, NewGroup},
    },
};

/// Asks about the groups of an account, and changes them. Every call is one query to the server, but for
/// [`info`](Self::info) of a group that is known already.
///
/// # Errors
/// Every call: [`CommandError::NotConnected`](crate::engine::CommandError::NotConnected),
/// [`Refused`](crate::engine::CommandError::Refused) with the server's code,
/// [`NoAnswer`](crate::engine::CommandError::NoAnswer), [`Interrupted`](crate::engine::CommandError::Interrupted) when the
/// connection is lost meanwhile, and [`Error::Stopped`].
#[derive(Clone, Copy, Debug)]
pub struct Groups<'c> {
    pub(super) client: &'c Client,
}

impl Groups<'_> {
    /// All groups that we are in.
    ///
    /// # Errors
    /// See [`Groups`].
    pub async fn list(&self) -> Result<Vec<GroupObject>, Error> {
        match self.ask(GroupRequest::List).await? {
            Reply::Groups(groups) => Ok(groups),
            _ => Err(Error::Stopped),
        }
    }

    /// What is known of a group.
    ///
    /// # Errors
    /// See [`Groups`].
    pub async fn info(&self, group: &Jid) -> Result<GroupObject, Error> {
        self.one(GroupRequest::Info(group.clone())).await
    }

    /// Makes a group.
    ///
    /// # Errors
    /// See [`Groups`].
    pub async fn create(&self, group: NewGroup) -> Result<GroupObject, Error> {
        self.one(GroupRequest::Create(group)).await
    }

    /// Adds, removes, promotes or demotes participants, and tells what became of each.
    ///
    /// # Errors
    /// See [`Groups`].
    pub async fn change(&self, group: &Jid, action: MemberAction, members: &[Jid]) -> Result<Vec<MemberResult>, Error> {
        let request = GroupRequest::Members { group: group.clone(), action, members: members.to_vec() };
        match self.ask(request).await? {
            Reply::Members(results) => Ok(results),
            _ => Err(Error::Stopped),
        }
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// See [`Groups`].
    pub async fn leave(&self, group: &Jid) -> Result<(), Error> {
        self.ask(GroupRequest::Leave(group.clone())).await.map(drop)
    }

    /// Gives a group another name.
    ///
    /// # Errors
    /// See [`Groups`].
    pub async fn set_subject(&self, group: &Jid, subject: impl Into<String>) -> Result<(), Error> {
        let request = GroupRequest::Subject { group: group.clone(), subject: subject.into() };
        self.ask(request).await.map(drop)
    }

    /// Moves a switch of a group.
    ///
    /// # Errors
    /// See [`Groups`].
    pub async fn set(&self, group: &Jid, setting: Setting) -> Result<(), Error> {
        self.ask(GroupRequest::Setting { group: group.clone(), setting }).await.map(drop)
    }

    async fn one(&self, request: GroupRequest) -> Result<GroupObject, Error> {
        match self.ask(request).await? {
            Reply::Group(group) => Ok(*group),
            _ => Err(Error::Stopped),
        }
    }

    async fn ask(&self, request: GroupRequest) -> Result<Reply, Error> {
        self.client.command(Command::Group(request)).await
    }
}
