"""A resolver outside that knows one name, one lie and one secret of the node, and writes down what
it was asked: `upstream.py FILE`."""
import socketserver
import sys

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

ANSWERS = {"www.example.com.": "198.51.100.7", "rebind.example.com.": "10.213.0.1",
           "loop.example.com.": "127.0.0.1"}


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        query = dns.message.from_wire(data)
        question = query.question[0]
        with open(sys.argv[1], "a", encoding="utf-8") as asked:
            asked.write(question.to_text() + "\n")
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        address = ANSWERS.get(question.name.to_text().lower())
        if address is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == 1:
            reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", address))
        sock.sendto(reply.to_wire(), self.client_address)


socketserver.ThreadingUDPServer(("192.0.2.10", 53), Handler).serve_forever()
