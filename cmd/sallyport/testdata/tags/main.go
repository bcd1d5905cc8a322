// Command tags is a CLI plugin that shows what it is handed, and tries what it
// must not be able to do.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	sallyport "github.com/sallyport-project/sallyport/sdk"
	"github.com/sallyport-project/sallyport/sdk/plugin/cli"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Println("usage: tag COMMAND")
		os.Exit(2)
	}
	if err := run(os.Args[2], os.Args[3:]); err != nil {
		cli.Exit(err)
	}
}

func run(command string, args []string) error {
	switch command {
	case "--help":
		fmt.Println("help of", os.Args[1], "itself")
	case "args":
		fmt.Printf("%q\n", append(os.Args[1:2], args...))
	case "env":
		fmt.Println(strings.Join(os.Environ(), "\n"))
	case "copy":
		_, err := io.Copy(os.Stdout, os.Stdin)
		fmt.Fprintln(os.Stderr, "copied")
		return err
	case "exit":
		code, _ := strconv.Atoi(args[0])
		os.Exit(code)
	case "die":
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
		select {}
	case "wait":
		return wait()
	case "handover":
		d, err := cli.Handover()
		fmt.Println(d.Schema, d.Plugin, d.Version, d.Command, d.Output, d.Context, d.URL, d.Session != nil, d.NoSession)
		return err
	case "grants":
		return grants()
	case "subjects":
		return subjects()
	case "token":
		d, err := cli.Handover()
		if err != nil || d.Session == nil {
			return errors.Join(err, errors.New("no session"))
		}
		fmt.Print(d.Session.Token)
	case "read":
		_, err := os.ReadFile(args[0])
		return err
	case "write":
		return os.WriteFile(args[0], nil, 0o600)
	case "exec":
		return syscall.Exec(args[0], args, nil)
	case "connect":
		c, err := net.Dial(args[0], args[1])
		if err == nil {
			_ = c.Close()
		}
		return err
	case "type": // into the terminal, as if the user had
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, 0, 0x5412, 0)
		return errno
	default:
		return fmt.Errorf("unknown command %s", command)
	}
	return nil
}

func wait() error {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
	fmt.Println("waiting", os.Getpid())
	fmt.Println("caught", <-caught)
	os.Exit(9)
	return nil
}

func grants() error {
	client, err := cli.Client()
	if err != nil {
		return err
	}
	list, err := client.Grants(context.Background(), sallyport.GrantQuery{})
	if err == nil {
		fmt.Println("grants", len(list.Items))
	}
	return err
}

// subjects asks for more than the manifest does.
func subjects() error {
	client, err := cli.Client()
	if err != nil {
		return err
	}
	_, err = client.Subjects(context.Background(), sallyport.SubjectQuery{})
	return err
}
