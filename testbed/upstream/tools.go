//go:build tools

// Package tools keeps the module whose manager is built here: a program can't be imported.
package tools

import _ "github.com/medik8s/fence-agents-remediation/cmd"
