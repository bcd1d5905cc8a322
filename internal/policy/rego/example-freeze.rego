# A veto: while this document is active nothing is released, whatever the others
# say. Remove it to end the freeze.
package sallyport

release := {"allow": false, "reasons": ["change freeze"]}
