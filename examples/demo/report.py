"""A web app that says which container it is, and who looks.

Usage: report.py NAME PORT
"""
import http.server
import sys


class Report(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = self.requestline + str(self.headers)
        page = (f"<!doctype html><title>Report</title><h1>hello from {sys.argv[1]}</h1>"
                f"<p>you are {self.headers['X-Mesh-User']}, and showed me "
                f"{'a token' if 'mesh_' in told else 'no token'}</p>").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[2])), Report).serve_forever()
