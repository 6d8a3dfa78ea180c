"""The page for people in headless Chromium, through real nginx, with the real controller and nodes:
who sees what, what a refusal lacks, what passes now; by keyboard alone; nothing that somebody
declares becomes more than text."""
import os
import pathlib
import subprocess
import tempfile
import unittest

from browser import Browser
from cluster import ClusterTest
from node import PYTHON, until
from proxied import PORT, PROXY, QUICKLY, SERVER, ZONE, Nginx, admin, new_token, web

WEB = web(more=QUICKLY)
PAGE = f"https://mesh.{ZONE}:{PORT}"
BAD = "<img src=x onerror=hit=1>"
WORKLOADS = """
- {id: lab-1, owner: ada, name: lab, scope: CLUSTER,
   publish: [{port: 8888, http: true, label: Notebook, path: "/lab?a=1"}]}
- {id: db-1, owner: ada, workflow: r1, name: db, serves: [{port: 5432}]}
- {id: worker-1, owner: ada, workflow: r1, peers: [{name: db}]}
- {id: odd-1, owner: ada, name: odd, scope: CLUSTER,
   publish: [{port: 80, http: true, label: "<img src=x onerror=hit=1>",
              path: '/"><script>hit=1</script>'}]}
- {id: store-1, owner: bob, name: store, scope: CLUSTER, serves: [{port: 9000}]}
"""
# Which of the boxes a line runs behind, but for its very ends.
BEHIND = """
const behind = (path, boxes) => {
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'path'), found = new Set();
  line.setAttribute('d', path);
  for (let at = 2; at < line.getTotalLength() - 2; at += 3) {
    const { x, y } = line.getPointAtLength(at);
    for (const box of boxes) {
      if (x > box.x && x < box.x + 172 && y > box.y && y < box.y + 42) found.add(box.name);
    }
  }
  return [...found];
};
"""
# The texts that are seen, with how far their colour is from what they stand on: WCAG 2.1, 1.4.3.
CONTRASTS = """
const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = (colour) => {
  const [r, g, b] = numbers(colour).map((n) => n / 255)
    .map((n) => (n <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (one) => {
  const own = getComputedStyle(one).backgroundColor;
  return numbers(own)[3] === 0 ? ground(one.parentElement) : own;
};
const own = (one) => [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
return [...document.querySelectorAll('body *')]
  .filter((one) => one instanceof HTMLElement && own(one) && one.checkVisibility())
  .map((one) => {
    const [ink, under] = [getComputedStyle(one).color, ground(one)];
    const [dark, bright] = [light(ink), light(under)].sort((a, b) => a - b);
    return { text: one.innerText, ink, under, contrast: (bright + 0.05) / (dark + 0.05) };
  });
"""
# Where this is set, pictures are left there for people to look at.
PICTURES = os.environ.get("MESHD_PICTURES")


class PageTest(ClusterTest):
    OPTIONS = {"more": WEB}

    @classmethod
    def before_start(cls):
        super().before_start()
        cls.c1 = cls.cluster.controllers[0]
        cls.n1, cls.n2 = cls.cluster.machines
        cls.nginx = Nginx(cls.cluster, cls.c1)

    @classmethod
    def tearDownClass(cls):
        cls.nginx.close()
        cls.server.kill()
        cls.server.wait()
        super().tearDownClass()

    @classmethod
    def prepare(cls):
        cls.cluster.apply(WORKLOADS)
        cls.n1.prepare("lab-1")
        cls.server = subprocess.Popen(
            cls.n1.command("lab-1", *PYTHON, "-c", SERVER, "lab-1", 8888))
        cls.n1.ctl("wait", "lab-1")
        cls.db = cls.n2.container("db-1")
        cls.db.serve(proto="tcp", port=5432)
        cls.store = cls.n2.container("store-1")
        cls.store.serve(proto="tcp", port=9000)
        cls.worker = cls.n1.container("worker-1")
        cls.tokens = {user: new_token(cls.c1, user) for user in ("ada", "bob", "carol")}
        cls.tokens["root"] = new_token(cls.c1, "root", "--admin")

    def browser(self):
        browser = Browser({"mesh.example.org": PROXY, f"*.{ZONE}": PROXY})
        self.addCleanup(browser.close)
        browser.open(PAGE)
        browser.until_text("Sign in", "#sign-in")
        return browser

    def row_of(self, browser, id_):
        """Of a service: what stands in its cells."""
        return browser.until(f"a row of {id_}", lambda: browser.run(
            "const row = [...document.querySelectorAll('#service-rows tr')]"
            ".find(row => row.innerText.includes(arguments[0]));"
            "return row && [...row.cells].map(cell => cell.innerText);", id_))

    def signed_in(self, user):
        """By the keyboard."""
        browser = self.browser()
        browser.until("the field has the focus", lambda: browser.focused() == "Token")
        browser.type(self.tokens[user])
        browser.press("Enter")
        browser.until_text("Connections", "#main")
        browser.until_text(user, "#user")
        return browser

    def picture(self, browser, name):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(PICTURES or folder) / f"{name}.png"
            browser.screenshot(path)
            self.assertGreater(path.stat().st_size, 10_000)

    def refuse(self):
        """worker-1 tries store-1, over and over, as programs do."""
        address = self.n2.address_of("store-1")
        self.assertEqual(self.worker.ask(proto="tcp", to=address, port=9000)["result"], "refused")

    def behind(self, browser):
        """Which lines of the picture run behind a node."""
        return browser.run(BEHIND + """
          const boxes = [...document.querySelectorAll('#picture .node')].map((node) => {
            const { e, f } = node.transform.baseVal.consolidate().matrix;
            return { name: node.getAttribute('aria-label'), x: e, y: f };
          });
          return [...document.querySelectorAll('#picture .edge')].flatMap((edge) =>
            behind(edge.querySelector('.line').getAttribute('d'), boxes)
              .map((name) => `${edge.getAttribute('aria-label')}: ${name}`));""")

    @staticmethod
    def refused_lines(browser):
        """Of the picture: what they are called, and what stands at them."""
        return browser.run("return [...document.querySelectorAll('#picture .edge.refused')]"
                           ".map(one => `${one.getAttribute('aria-label')} | ${one.textContent}`);")

    @staticmethod
    def row(browser, first):
        """Of the refusals, as one text."""
        return next((text for text in browser.texts("#refusal-rows tr")
                     if text.startswith(first)), "")

    def test_somebody_who_is_not_signed_in_sees_the_sign_in_alone(self):
        browser = self.browser()
        for id_ in ("lab", "db-1", "store"):
            self.assertNotIn(id_, browser.text())
        status = browser.run("return fetch('/state.json')"
                             ".then(answer => answer.status);")
        self.assertEqual(status, 401)
        browser.type("mesh_" + "x" * 43)
        browser.press("Enter")
        browser.until_text("not valid here", "#sign-in-problem")

    def test_an_owner_sees_their_own_and_opens_it_by_its_link(self):
        browser = self.signed_in("ada")
        services = browser.until_text("Notebook", "#service-rows") and browser.text("#service-rows")
        self.assertIn("lab-1", services)
        self.assertNotIn("store", services)
        self.assertNotIn("bob", services)
        browser.until("it is ready", lambda: self.row_of(browser, "lab-1")[1] == "ready")
        self.assertEqual(self.row_of(browser, "lab-1")[3::2], ["ada", "n1"])
        self.assertEqual(self.row_of(browser, "odd-1")[1], "waiting to run")
        fetched = browser.run("return performance.getEntriesByType('resource').map(e => e.name);")
        self.assertIn(f"{PAGE}/state.json", fetched)
        for url in fetched:
            self.assertTrue(url.startswith(f"{PAGE}/"), url)
        browser.run("[...document.querySelectorAll('#service-rows a')]"
                    ".find(a => a.innerText === 'Notebook').focus();")
        browser.press("Enter")
        browser.until("another window", lambda: len(browser.windows()) == 2)
        browser.switch(browser.windows()[1])
        browser.until_text("lab-1 /lab?a=1")
        self.assertIn("X-Mesh-User: ada", browser.text())
        self.assertEqual(browser.url(), f"https://lab.svc.{ZONE}:{PORT}/lab?a=1")
        for secret in (self.tokens["ada"], "__Host-mesh", "__Secure-mesh", "mesh_enter"):
            self.assertNotIn(secret, browser.text())
        for log in ("access.log", "error.log"):
            self.assertNotIn("mesh_", (self.cluster.dir / log).read_text().replace("mesh_enter", ""))

    def test_others_see_theirs_and_an_administrator_all(self):
        bob = self.signed_in("bob")
        bob.until_text("store-1", "#service-rows")
        self.assertNotIn("lab-1", bob.text("#main"))
        carol = self.signed_in("carol")
        carol.until_text("Nothing of yours")
        root = self.signed_in("root")
        for id_, owner in (("store-1", "bob"), ("lab-1", "ada"), ("worker-1", "ada")):
            self.assertEqual(self.row_of(root, id_)[3], owner)

    def test_a_refusal_says_what_is_missing_to_both_owners_until_it_is_there(self):
        ada, bob = self.signed_in("ada"), self.signed_in("bob")
        self.refuse()
        ada.until_text("in worker-1: peers: [{name: store, scope: CLUSTER}]", "#refusal-rows")
        self.assertIn("Yours to add", self.row(ada, "worker-1"))
        self.assertNotIn("of bob", self.row(ada, "worker-1"), "who declares no peer is not told")
        bob.until_text("in worker-1: peers:", "#refusal-rows")
        self.assertIn("For ada to add", self.row(bob, "worker-1"))
        for browser in (ada, bob):
            line, = self.refused_lines(browser)
            self.assertRegex(line, r"^worker-1 to store(-1)?: (\d+ refused) \| \2$")
        self.assertEqual(self.behind(ada), [])
        self.picture(ada, "refused")

        self.cluster.apply("- {id: worker-1, owner: ada, workflow: r1, "
                           "peers: [{name: db}, {name: store, scope: CLUSTER}]}\n")
        until(lambda: "store" in self.n1.ctl("list", "workloads", "-o", "json").stdout, "n1 has it")
        self.refuse()
        ada.until_text("in store-1: admit_owners: [ada]", "#refusal-rows")
        self.assertIn("For bob to add", self.row(ada, "worker-1"))
        bob.until_text("in store-1: admit_owners: [ada]", "#refusal-rows")
        self.assertIn("Yours to add", self.row(bob, "worker-1"))

        self.cluster.apply("- {id: store-1, owner: bob, name: store, scope: CLUSTER, "
                           "serves: [{port: 9000}], admit_owners: [ada]}\n")
        for browser in (ada, bob):
            browser.until("nothing is missing", lambda: not browser.texts("#refusal-rows tr"))
            self.assertEqual(self.refused_lines(browser), [])
            self.assertEqual(self.behind(browser), [])
        bob.until("ada stands at the line's other end",
                  lambda: any(text.startswith("ada") for text in bob.texts("#edge-rows tr")))
        self.assertIn("store", ada.text("#edge-rows"))
        self.assertNotIn("store-1", ada.text(), "ada learns no more than the name that she declares")

    def test_what_passes_now_is_on_the_line(self):
        ada = self.signed_in("ada")
        self.worker.open(key="live", proto="tcp", to=self.n2.address_of("db-1"), port=5432)

        def passes():
            for _ in range(500):
                self.worker.talk(key="live")
            return "kB/s" in ada.text("#edge-rows") or "MB/s" in ada.text("#edge-rows")
        ada.until("traffic is shown", passes)
        self.assertTrue(ada.run("return document.querySelector('#picture .edge.live') !== null;"))
        ada.prefer(color_scheme="dark")
        self.picture(ada, "live-dark")
        ada.until("and ends", lambda: "B/s" not in ada.text("#edge-rows"))

    def test_no_line_runs_behind_a_service_it_has_nothing_to_do_with(self):
        told = self.browser().run(BEHIND + """
          let seed = 7;
          const draw = (below) => (seed = seed * 48271 % 2147483647) % below;
          const isOthers = (key) => key.startsWith('others ');
          return import('/layout.js').then(({ layout }) => {
            let drawn = 0;
            for (let round = 0; round < 60; ++round) {
              const bands = [], keys = [];
              for (let band = 1 + draw(5); band > 0; --band) {
                const nodes = Array.from({ length: 1 + draw(6) }, (_, at) => `${band}.${at}`);
                keys.push(...nodes);
                bands.push({ key: band === 5 ? 'others called' : `band ${band}`, nodes,
                  folded: nodes.length === 1 && draw(3) === 0 });
              }
              const edges = [];
              for (let count = draw(12); count > 0; --count) {
                const from = keys[draw(keys.length)], to = keys[draw(keys.length)];
                if (from !== to) edges.push({ from, to, open: draw(4) > 0 });
              }
              const at = layout(bands, edges, isOthers);
              const boxes = [...at.nodes].map(([name, { x, y }]) => ({ name, x, y }));
              for (const [number, { path, points }] of at.edges.entries()) {
                ++drawn;
                const met = behind(path, boxes);
                const inside = points.every(({ x, y }) =>
                  x > at.left && x < at.right && y > 0 && y < at.height);
                if (met.length || !inside) return JSON.stringify([round, edges[number], met, at]);
              }
            }
            return drawn;
          });""")
        self.assertIsInstance(told, int, told)
        self.assertGreater(told, 200)

    def press_until(self, browser, key, wanted):
        """By its name, as a screen reader says it."""
        for _ in range(20):
            if browser.focused().startswith(wanted):
                return
            browser.press(key)
        self.fail(f"{key} does not lead to {wanted}, but to {browser.focused()}")

    def test_the_keyboard_is_enough(self):
        ada = self.signed_in("ada")
        ada.until_text("worker-1", "#service-rows")
        self.press_until(ada, "Tab", "Notebook")
        self.press_until(ada, "Tab", "Fold all")
        ada.press("Tab")
        self.assertRegex(ada.focused(), "connection", "the picture is one stop")
        for _ in range(6):
            ada.press("Up")
        self.press_until(ada, "Down", "worker-1, ")
        ada.press("Right")
        self.assertRegex(ada.focused(), "^worker-1 to ")
        ada.press("Enter")
        ada.until_text("Declared", "#details")
        ada.press("Escape")
        ada.until("the details are closed", lambda: not ada.text("#details"))
        self.assertRegex(ada.focused(), "^worker-1 to ")
        ada.press("Right")
        self.assertRegex(ada.focused(), "^(db|store), ")
        self.press_until(ada, "Tab", "Filter")
        ada.type("lab")
        ada.until("one is left", lambda: len(ada.texts("#service-rows tr")) == 1)

    def test_what_somebody_declares_stays_text(self):
        for user in ("ada", "root"):
            browser = self.signed_in(user)
            browser.until_text(BAD, "#service-rows")
            browser.run("[...document.querySelectorAll('#picture .node')]"
                        ".find(one => one.getAttribute('aria-label').startsWith('odd'))"
                        ".dispatchEvent(new MouseEvent('click', {bubbles: true}));")
            browser.until_text(BAD, "#details")
            self.assertEqual(browser.run(
                "return [window.hit ?? 'no', document.querySelectorAll('main img, main script, "
                "header script').length].join();"), "no,0")
            self.assertEqual([told for told in browser.problems() if " 401 " not in told], [],
                             "it asks whether somebody is signed in")

    def test_scripts_of_others_do_not_run(self):
        ada = self.signed_in("ada")
        ada.run("const one = document.createElement('script'); one.textContent = 'window.hit = 1';"
                "document.body.append(one);"
                "document.body.insertAdjacentHTML('beforeend', '<p style=\"color:red\" "
                "onclick=\"window.hit = 1\" id=\"planted\">x</p>');"
                "document.querySelector('#planted').click();")
        self.assertEqual(ada.run("return window.hit ?? 'no';"), "no")
        told = " ".join(ada.problems())
        self.assertIn("Content Security Policy", told)

    def test_it_is_light_and_dark_as_its_reader_wants(self):
        ada = self.signed_in("ada")
        ada.until_text("Notebook", "#service-rows")
        colours = {}
        for scheme in ("light", "dark"):
            ada.prefer(color_scheme=scheme, reduced_motion="reduce")
            texts = ada.run(CONTRASTS)
            self.assertGreater(len(texts), 20, "void")
            for text in texts:
                self.assertGreaterEqual(text["contrast"], 4.5, (scheme, text))
            colours[scheme] = [{text[what] for text in texts} for what in ("ink", "under")]
            self.picture(ada, scheme)
        for light, dark in zip(colours["light"], colours["dark"]):
            self.assertEqual(light & dark, set(), "each colour has its counterpart")

    def test_who_signs_out_sees_nothing_more(self):
        ada = self.signed_in("ada")
        ada.until_text("lab-1", "#service-rows")
        ada.click("#sign-out")
        ada.until_text("Sign in", "#sign-in")
        ada.open(PAGE)
        ada.until_text("Not signed in", "#contact")
        self.assertNotIn("lab-1", ada.text())

    def test_who_loses_the_token_is_asked_for_another(self):
        self.tokens["dan"] = new_token(self.c1, "dan")
        dan = self.signed_in("dan")
        people = admin(self.c1, "token", "people").stdout.splitlines()
        admin(self.c1, "token", "remove",
              next(line.split()[0] for line in people if " dan " in line))
        dan.until_text("Sign in", "#sign-in")

    def test_it_says_when_it_has_lost_contact(self):
        ada = self.signed_in("ada")
        ada.until_text("lab-1", "#service-rows")
        self.c1.kill()
        try:
            ada.until_text("No contact since", "#lost")
            self.assertIn("lab-1", ada.text("#service-rows"), "what was there stays")
            self.picture(ada, "lost")
        finally:
            self.c1.start()
            self.cluster.settled()
        ada.until_text("Live", "#contact")
        self.assertEqual(ada.text("#lost"), "")


if __name__ == "__main__":
    unittest.main(verbosity=2)
