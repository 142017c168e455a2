//! The link in every mail: a page that asks, and the click that ends the mails.
//!
//! In: `GET` or `POST /unsubscribe/{link}`. Out: a small page for people. A `GET` changes nothing,
//! because mail scanners follow links; a mail program's one click is a `POST` (RFC 8058), and so is
//! the page's own button. Nothing of the link is on the page.

use http::StatusCode;

use super::Visit;
use super::answer::Answer;
use crate::outcome::Outcome;

/// Bytes of the click's body, which says nothing that the link does not.
const CLICK_BYTES_MAX: usize = 1024;

const ASK: &str = "<p>No more mails of this kind to this address?</p>\
    <form method=\"post\"><input type=\"hidden\" name=\"List-Unsubscribe\" value=\"One-Click\">\
    <button>Unsubscribe</button></form>";

const DONE: &str = "<p>You are unsubscribed. The device that sent the mails is told when it next \
    tries, and gives this address up.</p>";

/// Asks a person.
/// Errors: `unsubscribe_link_invalid`.
#[utoipa::path(
    get, path = "/unsubscribe/{link}", tag = "e-mail",
    params(("link" = String, Path, description = "From the mail's List-Unsubscribe header.")),
    responses(
        (status = 200, description = "A page with a button.", content_type = "text/html"),
        (status = "default", description = "Refused.",
         body = super::wire::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) fn ask(visit: &Visit<'_>) -> Result<Answer, Outcome> {
    visit.relay().farewell_link(visit.last_segment())?;
    Ok(Answer::page(StatusCode::OK, ASK))
}

/// Takes the click.
/// Errors: `unsubscribe_link_invalid`.
#[utoipa::path(
    post, path = "/unsubscribe/{link}", tag = "e-mail",
    description = "One-click unsubscribe (RFC 8058). The next message to the pairing is `gone`.",
    params(("link" = String, Path, description = "From the mail's List-Unsubscribe header.")),
    responses(
        (status = 200, description = "A page that says so.", content_type = "text/html"),
        (status = "default", description = "Refused.",
         body = super::wire::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn take(mut visit: Visit<'_>) -> Result<Answer, Outcome> {
    visit.read(CLICK_BYTES_MAX).await?;
    visit.relay().farewell(visit.last_segment())?;
    Ok(Answer::page(StatusCode::OK, DONE))
}
