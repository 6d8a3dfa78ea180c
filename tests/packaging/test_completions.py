"""The completions that the packages install, as bash loads them when somebody asks: what it puts
into the line is held against what the programs themselves say of their words."""
import re
import unittest

from machine import MachineTest, package

WORKLOADS = """
workloads:
- {id: db, owner: ada, workflow: wf1, name: store, serves: [{port: 5432}]}
- {id: worker, owner: ada, workflow: wf1, peers: [{name: store}]}
"""
PROGRAMS = ("meshctl", "mesh-controller")
# Ctrl-T puts all completions into the line, Ctrl-G says the line.
SHELL = r"""
. /usr/share/bash-completion/bash_completion
bind 'set bell-style none'
bind '"\C-t": insert-completions'
bind -x '"\C-g": printf "<%s>\n" "$READLINE_LINE"'
"""
COMPLETE, SAY, DISCARD = "\x14", "\x07", "\x15"
FOREIGN = re.compile("does not belong to it|unknown option")


def options(text):
    """Of a description: one stands at the beginning of a line, or after another and a comma."""
    return set(re.findall(r"(?:^ *|, )(--?[\w-]+)", text, re.MULTILINE))


class CompletionsTest(MachineTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.machine.install(*map(package, ("meshd", *PROGRAMS)))
        cls.machine.apply(WORKLOADS)
        (cls.machine.root / "srv/bashrc").write_text(SHELL, encoding="utf-8")
        for folder in ("some/folder", "none"):
            (cls.machine.root / "srv" / folder).mkdir(parents=True)
        (cls.machine.root / "srv/some/file").touch()

    def complete(self, *lines):
        """What bash offers at the end of each of the lines."""
        keys = "".join(f"{line}{COMPLETE}{SAY}{DISCARD}" for line in lines) + "exit\n"
        said = self.machine.run("env", "HOME=/", "TERM=dumb", "bash", "--rcfile",
                                "/srv/bashrc", "-i", stdin=keys).stdout
        found = re.findall("^<(.*)>$", said, re.MULTILINE)
        self.assertEqual(len(found), len(lines), said)
        # They take the place of the word that was begun, which is left where there are none.
        begun = [re.search("[^ =:]*$", line)[0] for line in lines]
        return [set(after[len(line) - len(word):].split()) - {word}
                for line, after, word in zip(lines, found, begun)]

    def offers(self, line):
        return self.complete(line)[0]

    def help(self, *command):
        return self.machine.run(*command, "--help").stdout

    def commands(self):
        listed = self.help("meshctl").partition("\nCommands\n")[2].partition("\n\n")[0]
        found = re.findall(r"^  (\w+) ", listed, re.MULTILINE)
        self.assertIn("apply", found)
        return found

    def test_meshctl_has_its_commands(self):
        commands = set(self.commands())
        for line in ("meshctl ", "meshctl -o json ", "meshctl help "):
            self.assertEqual(self.offers(line), commands, line)
        self.assertEqual(self.offers("meshctl de"), {"delete", "detach"})

    def test_meshctl_has_the_options_of_each_command(self):
        # The help of `help` is that of meshctl.
        commands = [["meshctl"], *(["meshctl", command] for command in self.commands()
                                   if command != "help")]
        found = self.complete(*(f"{' '.join(command)} -" for command in commands))
        for command, offered in zip(commands, found):
            said = self.help(*command).partition("\nOptions\n")[2].partition("\n\n")[0]
            self.assertIn("--help", options(said))
            self.assertEqual(offered - {"--version"}, options(said), command)
        self.machine.run("meshctl", "--version")

    def test_meshctl_has_the_words_of_its_usage(self):
        for command in ("list", "name", "wait", "resolve"):
            usage = self.help("meshctl", command).split("\nUsage\n")[1].split("\n\n")[0]
            words = re.match(rf"  meshctl {command} ([a-z|]*)", usage)[1]
            if words:
                self.assertEqual(self.offers(f"meshctl {command} "), set(words.split("|")))

    def test_meshctl_has_names_of_the_daemon(self):
        workloads = {"db", "worker"}
        for line, names in (("meshctl detach ", workloads), ("meshctl attach ", workloads),
                            ("meshctl resolve --as ", workloads), ("meshctl detach w", {"worker"}),
                            ("meshctl resolve --as=w", {"worker"}),
                            ("meshctl resolve --as worker ", {"store"}),
                            ("meshctl wait ", {*workloads, "store"}),
                            ("meshctl --run-dir=/run/meshd explain worker ", {*workloads, "store"}),
                            ("meshctl --run-dir ~/run/meshd detach ", workloads),
                            ("meshctl --run-dir /srv/none detach ", set()),
                            ("meshctl detach worker ", set())):
            self.assertEqual(self.offers(line), names, line)

    def test_values_of_options(self):
        for line, values in (("meshctl status -o ", {"json", "table"}),
                             ("meshctl -o j", {"json"}),
                             ("meshctl status --output=", {"json", "table"}),
                             ("meshctl status --output=t", {"table"}),
                             ("meshctl wait --timeout ", set()),
                             ("meshctl apply -f /srv/some/", {"/srv/some/file", "/srv/some/folder"}),
                             ("meshctl --run-dir /srv/some/", {"/srv/some/folder"}),
                             ("mesh-controller --config=/srv/some/fi", {"/srv/some/file"}),
                             ("mesh-controller --dir /srv/some/", {"/srv/some/folder"}),
                             ("mesh-controller backup /srv/some/fi", {"/srv/some/file"})):
            self.assertEqual(self.offers(line), values, line)

    def test_what_stands_behind_a_colon_is_no_word_of_its_own(self):
        kinds = self.offers("meshctl list ")
        self.assertIn("nodes", kinds)
        self.assertEqual(self.offers("meshctl --controller ctl.example.org:7443 list "), kinds)
        self.assertEqual(self.offers("meshctl --controller=a:1,b:2 --identity x list "), kinds)
        self.assertEqual(self.offers("mesh-controller node --controller a:1 "), {"dismiss"} |
                         {word for word in self.offers("mesh-controller node ") if word[0] == "-"})

    # --- mesh-controller: one text is the help of all its commands ---

    def usage(self):
        """Its commands, each with the words that may follow it."""
        lines = re.findall("mesh-controller (.*)$", self.help("mesh-controller").partition("\n\n")[0],
                           re.MULTILINE)
        found = {}
        for way in " | ".join(line for line in lines if line[0] != "[").split(" | "):
            command, _, words = way.partition(" ")
            found.setdefault(command, set()).update(
                words.split("|") if words.islower() else ())
        self.assertIn("token", found)
        return found

    def test_mesh_controller_has_its_commands(self):
        usage = self.usage()
        for line, words in (("mesh-controller ", set(usage)),
                            *((f"mesh-controller {command} ", words)
                              for command, words in usage.items() if words)):
            self.assertEqual({word for word in self.offers(line) if word[0] != "-"}, words, line)
        self.assertLessEqual({"dispatcher", "admin", "reader"},
                             self.offers("mesh-controller certify "))

    def test_mesh_controller_has_the_options_that_each_command_takes(self):
        text = self.help("mesh-controller")
        everything = sorted({*re.findall(r"(?<![\w-])(--?[a-z][\w-]*)", text)} -
                            {"--help", "--version", "--check-config"})
        commands = [f"{command} {word}".strip() for command, words in self.usage().items()
                    for word in sorted(words) or [""]]
        # It looks at its words first: nothing is made, and nobody is asked.
        asked = "\n".join(f"echo '{command}\t{option}\t'$(mesh-controller {command} {option} 1 "
                          "</dev/null 2>&1 >/dev/null)" for command in commands
                          for option in everything)
        taken = {command: {"--help"} for command in commands}
        for line in self.machine.run("sh", "-s", stdin=asked).stdout.splitlines():
            command, option, said = line.split("\t")
            if not FOREIGN.search(said):
                taken[command].add(option)
        self.assertIn("--hours", taken["token create"])
        found = self.complete(*(f"mesh-controller {command} -" for command in commands))
        for command, offered in zip(commands, found):
            self.assertEqual(offered - {"-h"}, taken[command], command)
        top = options(text.partition("\n\n")[2].split("\n\n")[1])
        self.assertIn("--config", top)
        self.assertEqual(self.offers("mesh-controller -"), top)


if __name__ == "__main__":
    unittest.main(verbosity=2)
