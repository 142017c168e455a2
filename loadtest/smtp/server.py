"""A real SMTP server for tests and the demo: aiosmtpd on a free port of loopback.

It says what happens in lines of JSON on standard output, the first with its port, and ends when
its standard input does. What it does with a mail is in the recipient's name:

    rcpt-550-5.1.1@…     that reply to RCPT; data-451-4.7.1@… the same at the end of the mail
    rcpt-hang@…          no reply at all; data-hang@… after the whole mail
    rcpt-drop@…          the connection is cut; data-drop@… after the whole mail
    anything else        the mail is taken
"""

import argparse
import asyncio
import email
import email.policy
import json
import logging
import ssl
import sys
import warnings

from aiosmtpd.smtp import SMTP, AuthResult

# Handshakes that fail and logins without TLS are what the tests are about.
logging.getLogger("mail").setLevel(logging.CRITICAL + 1)
warnings.simplefilter("ignore")


def say(event, **members):
    print(json.dumps({"event": event, **members}), flush=True)


async def obey(server, step, address):
    """Gives the reply that the recipient's name asks for, or nothing."""
    word, _, wish = address.split("@")[0].partition("-")
    if word != step:
        return None
    if wish == "hang":
        await asyncio.Event().wait()
    if wish == "drop":
        server.transport.abort()
        return "421 dropped"
    return wish.replace("-", " ", 1) + " as the test wants it"


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        reply = await obey(server, "rcpt", address)
        if reply:
            return reply
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        for address in envelope.rcpt_tos:
            reply = await obey(server, "data", address)
            if reply:
                return reply
        mail = email.message_from_bytes(envelope.original_content, policy=email.policy.default)
        text, html = mail.get_body(("plain",)), mail.get_body(("html",))
        say(
            "mail",
            sender=envelope.mail_from,
            recipients=envelope.rcpt_tos,
            tls=session.ssl is not None or server.implicit_tls,
            login=session.auth_data if session.authenticated else None,
            headers=[[name, str(value)] for name, value in mail.items()],
            defects=[str(defect) for part in mail.walk() for defect in part.defects],
            text=text.get_content() if text else None,
            html=html.get_content() if html else None,
            raw=envelope.original_content.decode("ascii", "replace"),
        )
        return "250 OK"


class Server(SMTP):
    implicit_tls = False

    def connection_made(self, transport):
        if self.session is None:
            say("connection")
        super().connection_made(transport)

    def connection_lost(self, error):
        say("closed")
        super().connection_lost(error)


def authenticator(login):
    def check(server, session, envelope, mechanism, data):
        if login and (data.login.decode(), data.password.decode()) == login:
            return AuthResult(success=True, auth_data=data.login.decode())
        return AuthResult(success=False, handled=False)

    return check


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--security", choices=["starttls", "tls", "cleartext"])
    arguments.add_argument("--certificate")
    arguments.add_argument("--key")
    arguments.add_argument("--username")
    arguments.add_argument("--password")
    arguments = arguments.parse_args()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(arguments.certificate, arguments.key)
    login = (arguments.username, arguments.password) if arguments.username else None
    starttls = arguments.security == "starttls"
    implicit = arguments.security == "tls"

    def protocol():
        server = Server(
            Handler(),
            hostname="localhost",
            tls_context=context if starttls else None,
            require_starttls=starttls,
            auth_required=login is not None,
            auth_require_tls=not implicit,
            authenticator=authenticator(login),
            timeout=60,
        )
        server.implicit_tls = implicit
        return server

    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        protocol, "127.0.0.1", 0, ssl=context if implicit else None
    )
    say("port", port=listening.sockets[0].getsockname()[1])
    await loop.run_in_executor(None, sys.stdin.read)
    sys.exit(0)


asyncio.run(main())
