// The program in every image of the AWS peer: a small web application, or a job. What it does stands in BEHAVIOUR,
// which an image sets and a task definition or an override may set otherwise; a command, if given, wins over both.
//
//	web MS     answers on PORT (8080): `/` with REVISION (after MS milliseconds, if given), `/health` with {"status":"UP"}, `/env` with
//	           its environment
//	slow N     the same, but `/health` answers 503 for the first N seconds
//	sick       the same, but `/health` always answers 503
//	late N     listens only after N seconds
//	crash      ends with 1 at once
//	job N ...  prints each further word as a line and ends with N
//
// `/fail?code=C` answers C and `/slow?ms=T` after T milliseconds. A termination signal ends a web application in order: what
// was asked before is still answered.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func number(words []string, at int) int {
	if at >= len(words) {
		return 0
	}
	n, err := strconv.Atoi(words[at])
	if err != nil {
		fmt.Fprintf(os.Stderr, "%q is not a number\n", words[at])
		os.Exit(64)
	}
	return n
}

func main() {
	words := os.Args[1:]
	if len(words) == 0 {
		words = strings.Fields(setting("BEHAVIOUR", "web"))
	}
	fmt.Printf("%s of revision %s starts\n", words[0], setting("REVISION", "none"))
	switch words[0] {
	case "crash":
		fmt.Fprintln(os.Stderr, "it cannot go on")
		os.Exit(1)
	case "job":
		for _, word := range words[min(2, len(words)):] {
			fmt.Println(word)
		}
		os.Exit(number(words, 1))
	case "web", "slow", "sick", "late":
		serve(words)
	default:
		fmt.Fprintf(os.Stderr, "no behaviour %q\n", words[0])
		os.Exit(64)
	}
}

func serve(words []string) {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	start := time.Now()
	if words[0] == "late" {
		select {
		case <-time.After(time.Duration(number(words, 1)) * time.Second):
		case <-end:
			return
		}
	}
	patience := time.Duration(number(words, 1)) * time.Second
	web := http.NewServeMux()
	pace := time.Duration(0)
	if words[0] == "web" {
		pace = time.Duration(number(words, 1)) * time.Millisecond
	}
	web.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(pace)
		fmt.Fprint(w, setting("REVISION", "none"))
	})
	web.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if words[0] == "sick" || words[0] == "slow" && time.Since(start) < patience {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"status":"DOWN"}`)
			return
		}
		fmt.Fprint(w, `{"status":"UP"}`)
	})
	web.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) {
		all := os.Environ()
		sort.Strings(all)
		fmt.Fprintln(w, strings.Join(all, "\n"))
	})
	web.HandleFunc("/fail", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.URL.Query().Get("code"))
		if err != nil || code < 200 || code > 599 {
			code = http.StatusInternalServerError
		}
		w.WriteHeader(code)
	})
	web.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		wait, _ := strconv.Atoi(r.URL.Query().Get("ms"))
		time.Sleep(time.Duration(wait) * time.Millisecond)
		fmt.Fprint(w, setting("REVISION", "none"))
	})
	server := &http.Server{Addr: ":" + setting("PORT", "8080"), Handler: web}
	done := make(chan struct{})
	go func() {
		fmt.Printf("%v\n", <-end)
		_ = server.Shutdown(context.Background())
		close(done)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-done
}
