package conformance

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport-project/sallyport/api/sallyport/manifest"
)

// seedExtension is the example of the guide, shortened where it repeats itself.
const seedExtension = `
from __future__ import annotations
from typing import Optional
from fastapi import APIRouter, Depends, HTTPException
from sqlmodel import SQLModel, Field, Session, select
from sdk import AttestationExtension

class TagRow(SQLModel, table=True):
    __tablename__ = "extension_myext_tags"
    tag_id: Optional[int] = Field(default=None, primary_key=True)
    machine_id: str = Field(index=True)

class TagCreate(SQLModel):
    label: str

class MyExtension(AttestationExtension):
    """Tag machines with arbitrary labels."""
    @property
    def name(self) -> str:
        return "my_ext"
    @property
    def version(self) -> str:
        return "1.0.0"
    def get_models(self) -> list[type]:
        return [TagRow]
    async def on_startup(self) -> None:
        # Optional: run once after tables are created.
        pass
    async def on_shutdown(self) -> None:
        pass
    def get_router(self) -> APIRouter:
        router = APIRouter(
            prefix="/api/v1/myext",
            tags=["my-extension"],
        )
        @router.post("/machines/{machine_id}/tags")
        async def create_tag(machine_id: str, body: TagCreate, session: Session = Depends(get_session)) -> TagRow:
            tag = TagRow(machine_id=machine_id, label=body.label)
            session.add(tag)
            session.commit()
            return tag
        return router

def get_session():
    raise NotImplementedError("wire up the real session factory")
`

// seedCLI is the example of the guide; its name is not its key, which is KEY.
const seedCLI = `
from __future__ import annotations
import click
from sdk.extensions import CliPlugin

class MyCliPlugin(CliPlugin):
    """CLI commands for the my-ext extension."""
    name = "KEY"
    version = "1.0.0"
    description = "Tag machines with custom labels"

    def register(self, cli: click.Group) -> None:
        """Called once at CLI startup. Attach all command groups here."""
        @cli.group("tag")
        def tag_group() -> None:
            """Manage machine tags."""

        @tag_group.command("list")
        @click.argument("machine_id")
        @click.option("--url", envvar="ATTESTATION_API_URL", default="http://localhost:9000")
        @click.option("--token", envvar="ATTESTATION_TOKEN", default=None)
        def tag_list(machine_id: str, url: str, token: str | None) -> None:
            from cli.api_client import AttestationClient
            client = AttestationClient(base_url=url, token=token)
            click.echo(client.get(f"/api/v1/myext/machines/{machine_id}/tags"))

        @tag_group.command("whoami")
        @click.option("--url", envvar="ATTESTATION_API_URL", default="http://localhost:9000")
        def tag_whoami(url: str) -> None:
            from cli.auth import get_token
            token = get_token()
            click.echo(len(token))
`

// ask judges one module by checklist.py.
func ask(t *testing.T, role, key, class, text string) map[string]answer {
	t.Helper()
	r := run{m: manifest.Manifest{Run: &manifest.Run{SearchPath: []string{"src"}}}}
	files := map[string][]byte{"src/mypackage/module.py": []byte(text), "other/module.py": []byte("print(1)")}
	got, why := judgeSources(t.Context(), map[string][]sources{role: {r.locate(key, "mypackage.module:"+class, files)}})
	if len(got) != len(checkedItems[role]) {
		t.Fatalf("%v %s", got, why)
	}
	return got
}

func TestChecklists_ExamplesOfTheGuide(t *testing.T) {
	got := ask(t, manifest.RoleExtension, "my-ext", "MyExtension", seedExtension)
	for id, a := range got {
		if a.Result != Pass {
			t.Errorf("%s %s: %s", id, a.Result, a.Reason)
		}
	}
	got = ask(t, manifest.RoleCLI, "my-ext", "MyCliPlugin", strings.Replace(seedCLI, "KEY", "my-ext", 1))
	for id, a := range got {
		if want := map[bool]Result{true: Skipped, false: Pass}[id == "cli/5"]; a.Result != want {
			t.Errorf("%s %s: %s", id, a.Result, a.Reason)
		}
	}
	// As the guide has it, name and key differ, against its own checklist.
	got = ask(t, manifest.RoleCLI, "my-ext", "MyCliPlugin", strings.Replace(seedCLI, "KEY", "my-extension", 1))
	if got["cli/1"].Result != Fail {
		t.Errorf("cli/1 %s: %s", got["cli/1"].Result, got["cli/1"].Reason)
	}
}

func TestChecklists_FindEachWrong(t *testing.T) {
	for what, c := range map[string]struct {
		id       string
		old, new string
		want     Result
	}{
		"name is not snake_case":           {"extension/1", `return "my_ext"`, `return "My-Ext"`, Fail},
		"name is computed":                 {"extension/1", `return "my_ext"`, `return NAME`, Skipped},
		"table of another":                 {"extension/2", "extension_myext_tags", "extension_other_tags", Fail},
		"table of the house":               {"extension/2", "extension_myext_tags", "machines", Fail},
		"table without a name":             {"extension/2", `__tablename__ = "extension_myext_tags"`, "x: int", Fail},
		"table as the name is written":     {"extension/2", "extension_myext_tags", "extension_my_ext_tags", Pass},
		"a model is forgotten":             {"extension/3", "return [TagRow]", "return []", Fail},
		"models are computed":              {"extension/3", "return [TagRow]", "return models()", Skipped},
		"prefix of the house":              {"extension/4", "/api/v1/myext", "/api/v1/machines", Fail},
		"prefix that only begins the same": {"extension/4", "/api/v1/myext", "/api/v1/myextra", Fail},
		"prefix below":                     {"extension/4", "/api/v1/myext", "/api/v1/my_ext/v2", Pass},
		"prefix is computed":               {"extension/4", `"/api/v1/myext"`, "PREFIX", Skipped},
		"no routes":                        {"extension/4", "        return router\n", "        return None\n", Pass},
		"global":                           {"extension/5", "            session.add(tag)", "            global last; last = tag", Fail},
		"state in a variable":              {"extension/5", "            session.add(tag)", "            SEEN[machine_id] = tag", Fail},
		"state in an attribute":            {"extension/5", "            session.add(tag)", "            self.last = tag", Fail},
		"work at start":                    {"extension/6", "        pass\n    async def on_shutdown", "        start()\n    async def on_shutdown", Skipped},
		"no Python":                        {"extension/1", "class TagCreate", "class class", Fail},
		"no such class":                    {"extension/1", "class MyExtension", "class Another", Fail},

		"key in another case":      {"cli/1", `"KEY"`, `"My-ext"`, Fail},
		"work at import":           {"cli/2", "import click\n", "import click\nprint('loaded')\n", Fail},
		"a file read at import":    {"cli/2", "import click\n", "import click\nVERSION = open('version').read()\n", Fail},
		"a request in register":    {"cli/2", "        @cli.group", "        urlopen('http://x')\n        @cli.group", Fail},
		"client at import":         {"cli/3", "import click\n", "import click\nfrom cli.api_client import AttestationClient\n", Fail},
		"client at import, caught": {"cli/3", "import click\n", "import click\ntry:\n    import cli.auth\nexcept ImportError:\n    pass\n", Fail},
		"no url":                   {"cli/4", `        @click.option("--url", envvar="ATTESTATION_API_URL", default="http://localhost:9000")` + "\n", "", Fail},
		"url without its variable": {"cli/4", `envvar="ATTESTATION_API_URL"`, `envvar="URL"`, Fail},
		"no token":                 {"cli/4", `        @click.option("--token", envvar="ATTESTATION_TOKEN", default=None)` + "\n", "", Fail},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			role, key, class, text := manifest.RoleExtension, "my-ext", "MyExtension", "SEEN = {}\n"+seedExtension[1:]
			text = strings.Replace(text, "SEEN = {}\nfrom __future__ import annotations\n", "from __future__ import annotations\nSEEN = {}\n", 1)
			if strings.HasPrefix(c.id, "cli/") {
				role, class, text = manifest.RoleCLI, "MyCliPlugin", seedCLI
			}
			if !strings.Contains(text, c.old) {
				t.Fatalf("the example does not have %q", c.old)
			}
			text = strings.ReplaceAll(strings.Replace(text, c.old, c.new, 1), "KEY", key)
			if a := ask(t, role, key, class, text)[c.id]; a.Result != c.want || a.Reason == "" {
				t.Errorf("%s: %s", a.Result, a.Reason)
			}
		})
	}
}

// Every item of both checklists is in the report, whatever the package is.
func TestChecklists_AreComplete(t *testing.T) {
	r := run{m: manifest.Manifest{Roles: []string{manifest.RoleVender}}}
	if err := r.checklists(t.Context()); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, c := range r.report.Checks {
		ids = append(ids, c.ID)
		if c.Result != Skipped || c.Reason == "" {
			t.Errorf("%+v", c)
		}
	}
	if want := []string{
		"extension/1", "extension/2", "extension/3", "extension/4", "extension/5", "extension/6", "cli/1", "cli/2", "cli/3", "cli/4", "cli/5",
	}; !slices.Equal(ids, want) {
		t.Errorf("%v", ids)
	}
	if got := slices.Sorted(maps.Keys(checkedItems)); len(got) != 2 {
		t.Errorf("%v", got)
	}
}

// Nothing of the sources runs: a module that would is only read.
func TestChecklists_RunNothing(t *testing.T) {
	evil := "import os\nos._exit(7)\n" + seedExtension
	evil = strings.Replace(evil, "from __future__ import annotations\n", "", 1)
	if a := ask(t, manifest.RoleExtension, "my-ext", "MyExtension", evil)["extension/1"]; a.Result != Pass {
		t.Errorf("%+v", a)
	}
}

// What is too deep for the parser is an answer too, not a crash of ours.
func TestChecklists_DeepSource(t *testing.T) {
	asked := map[string][]sources{manifest.RoleCLI: {{
		Key: "a", Class: "A", File: "a.py", Files: map[string]string{"a.py": "x = " + strings.Repeat("(", 100_000)},
	}}}
	got, why := judgeSources(t.Context(), asked)
	if len(got) == 0 && why == "" {
		t.Error("neither an answer nor a reason")
	}
	for id, a := range got {
		if a.Result == Pass {
			t.Errorf("%s: %+v", id, a)
		}
	}
}
