package plugin

import (
	"context"
	"os"
	"path/filepath"

	"github.com/sallyport-project/sallyport/internal/fault"
)

// program is what a process executes, ready to start.
type program struct {
	path        string // valid in this process, and in the child until exec
	args        []string
	env         []string
	tree        *SandboxTree
	interpreter *Interpreter
	planted     *planted
	opened      *os.File // the interpreter
}

// close gives back what the process needed, after its end.
func (p *program) close() {
	if p.opened != nil {
		_ = p.opened.Close()
	}
	if p.planted != nil {
		p.planted.remove()
	}
}

// unchanged reports that what the process runs from is no longer what was
// verified. Of a sealed image and of a mounted tree that cannot be.
func (p *program) unchanged() error {
	if p == nil || p.planted == nil {
		return nil
	}
	return p.planted.unchanged()
}

// program makes what a package runs from its verified image; dir is the private
// folder of this start.
func (h *Host) program(ctx context.Context, e Entry, img *image, dir string) (_ *program, err error) {
	m := e.Manifest
	if m.Run == nil {
		return &program{path: img.path(), args: []string{m.Name}}, nil
	}
	p := &program{tree: &SandboxTree{Image: img.memoryFile()}}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if m.Run.Interpreter != "" {
		var found Interpreter
		if p.opened, found, err = openInterpreter(m.Run.Interpreter, h.cfg.Interpreters); err != nil {
			return nil, err
		}
		p.interpreter, p.tree.Interpreter = &found, found.Path
		if err := h.witness(ctx, m.Name, found); err != nil {
			return nil, err
		}
	}
	if h.cfg.Sandbox != nil && h.cfg.Sandbox.MountsTree() {
		p.tree.Dir = filepath.Join(dir, "tree")
		if err := os.Mkdir(p.tree.Dir, 0o700); err != nil {
			return nil, fault.Wrap(err, "make folder")
		}
	} else {
		if p.planted, err = h.store.plant(img); err != nil {
			return nil, err
		}
		p.tree.Dir = p.planted.dir
	}
	if p.interpreter == nil {
		p.path = filepath.Join(p.tree.Dir, filepath.FromSlash(m.Run.Command))
		p.args = append([]string{p.path}, m.Run.Args...)
		return p, nil
	}
	p.path = descriptorPath(p.opened)
	p.args, p.env, err = p.interpreter.command(*m.Run, p.tree.Dir)
	return p, err
}

// witness tells about an interpreter before a plugin runs by it for the first
// time, and whenever it has changed. What cannot be recorded does not happen.
func (h *Host) witness(ctx context.Context, plugin string, i Interpreter) error {
	h.told.mu.Lock()
	defer h.told.mu.Unlock()
	if h.told.by[plugin] == i {
		return nil
	}
	if h.cfg.Witness != nil {
		if err := h.cfg.Witness(ctx, plugin, i); err != nil {
			return fault.Unavailablef("the interpreter of plugin %s cannot be recorded", plugin).Because(err)
		}
	}
	h.told.by[plugin] = i
	return nil
}

// interpreter is the one that was witnessed last, nil if none was.
func (h *Host) interpreter(plugin string) *Interpreter {
	h.told.mu.Lock()
	defer h.told.mu.Unlock()
	if i, ok := h.told.by[plugin]; ok {
		return &i
	}
	return nil
}
